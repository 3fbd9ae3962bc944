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

uint64_t mk_kernel_budget(const mk_kernel *k)
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

/* Put one word into @to as name, zero, value, zero. Quotes around a value, or around the whole word, are taken off;
 * elsewhere they stay. A word that begins with "=" has no name before the next one. @return where it ends */
static char *cut_word(const char *word, size_t length, char *to)
{
	const char *begin = word, *end = word + length, *equals;

	if (*begin == '"')
		begin++;
	equals = begin < end ? memchr(begin + 1, '=', (size_t)(end - begin - 1)) : NULL;
	if (equals && equals + 1 < end && equals[1] == '"') {
		if (end > equals + 2 && end[-1] == '"')
			end--;
	} else if (begin > word && end > begin && end[-1] == '"') {
		end--;
	}
	for (; begin < (equals ? equals : end); begin++)
		*to++ = *begin == '-' ? '_' : *begin;
	*to++ = 0;
	if (equals) {
		equals += equals + 1 < word + length && equals[1] == '"' ? 2 : 1;
		memcpy(to, equals, (size_t)(end - equals));
		to += end - equals;
	}
	*to++ = 0;
	return to;
}

/* As multikernel/image/cmdline.py, and as Linux reads its own (kernel/params.c): words stand between blanks, which inside
 * of double quotes are like any other character; what follows a lone "--" is no parameter. */
const char *mk_cut_params(const char *cmdline, char *params)
{
	char *to = params;

	for (;;) {
		char *name = to;
		const char *word;
		bool quoted = false;

		while (is_space(*cmdline))
			cmdline++;
		for (word = cmdline; *cmdline && (quoted || !is_space(*cmdline)); cmdline++)
			quoted ^= *cmdline == '"';
		if (cmdline == word)
			break;
		to = cut_word(word, (size_t)(cmdline - word), to);
		if ((cmdline == word + 2 && memcmp(word, "--", 2) == 0) ||
		    (cmdline == word + 4 && memcmp(word, "\"--\"", 4) == 0))
			return name;
	}
	return to;
}

static bool same_name(const char *name, const char *asked)
{
	for (; *name && *name == (*asked == '-' ? '_' : *asked); name++)
		asked++;
	return *name == *asked;
}

const char *mk_kernel_param(const mk_kernel *k, const char *name)
{
	const char *found = NULL, *at = k->params;

	while (at < k->params_end) {
		const char *value = at + strlen(at) + 1;

		if (same_name(at, name))
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
