/* kernel_identity.c: who a native instance is, its parameters, and its words on the console. */
#include "kernel.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

uint32_t mk_kernel_id(const mk_kernel *k)
{
	return k->id;
}

const char *mk_kernel_name(const mk_kernel *k)
{
	return k->name;
}

uint64_t mk_kernel_epoch(const mk_kernel *k)
{
	return k->epoch;
}

const char *mk_kernel_machine(const mk_kernel *k)
{
	return k->machine;
}

uint64_t mk_kernel_memory(const mk_kernel *k)
{
	return k->memory;
}

const char *mk_kernel_cmdline(const mk_kernel *k)
{
	return k->cmdline;
}

/* --- parameters --------------------------------------------------------------------------------------------------- */

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* As a kernel reads its own (lib/cmdline.c, next_arg): words stand between spaces, double quotes keep spaces in a word
 * and are dropped, the first "=" outside of them ends the name. One without a value has an empty one. */
void mk_cut_params(const char *cmdline, char *params)
{
	char *to = params;

	while (*cmdline) {
		bool quoted = false, value = false;
		char *name = to;

		while (is_space(*cmdline))
			cmdline++;
		if (!*cmdline)
			break;
		for (; *cmdline && (quoted || !is_space(*cmdline)); cmdline++) {
			if (*cmdline == '"') {
				quoted = !quoted;
			} else if (*cmdline == '=' && !value && !quoted) {
				value = true;
				*to++ = 0;
			} else {
				*to++ = *cmdline;
			}
		}
		if (!value)
			*to++ = 0;
		*to++ = 0;
		if (!*name) /* a value of nothing, which nobody could ask for */
			to = name;
	}
	*to = 0;
}

const char *mk_kernel_param(const mk_kernel *k, const char *name)
{
	const char *found = NULL, *at = k->params;

	while (*at) {
		const char *value = at + strlen(at) + 1;

		if (strcmp(at, name) == 0)
			found = value;
		at = value + strlen(value) + 1;
	}
	return found;
}

/* --- the console ---------------------------------------------------------------------------------------------------- */

void mk_kernel_log(mk_kernel *k, int level, const char *format, ...)
{
	char text[MK_CONSOLE_LINE_MAX];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text) - 1, format, arguments);
	va_end(arguments);
	if (length < 0)
		return;
	if ((size_t)length > sizeof(text) - 2)
		length = sizeof(text) - 2;
	if (!length || text[length - 1] != '\n')
		text[length++] = '\n';
	mk_console_write(k->console, (uint16_t)level, text, (size_t)length);
}
