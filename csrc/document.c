/* document.c: see document.h. A checker of JSON (RFC 8259) that walks once, and look-ups that walk again. */
#include "multikernel/document.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct cursor {
	const char *at, *end;
};

/* --- checking --------------------------------------------------------------------------------------------------- */

static bool next_is(struct cursor *c, char wanted)
{
	if (c->at == c->end || *c->at != wanted)
		return false;
	c->at++;
	return true;
}

static void skip_space(struct cursor *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
		c->at++;
}

static int hex_digit(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

/* The four digits of a \u escape. @return the code unit, or -1 */
static int32_t code_unit(struct cursor *c)
{
	int32_t unit = 0;

	for (int i = 0; i < 4; i++) {
		int digit = c->at < c->end ? hex_digit(*c->at) : -1;

		if (digit < 0)
			return -1;
		unit = unit * 16 + digit;
		c->at++;
	}
	return unit;
}

/* How many bytes the UTF-8 character at @at has (Unicode 15, table 3-7); 0: there is none. */
static unsigned character(const unsigned char *at, const unsigned char *end)
{
	unsigned char first = *at, low = 0x80, high = 0xbf;
	unsigned length = first < 0x80   ? 1
			  : first < 0xc2 ? 0
			  : first < 0xe0 ? 2
			  : first < 0xf0 ? 3
			  : first < 0xf5 ? 4
					 : 0;

	if (!length || (size_t)(end - at) < length)
		return 0;
	if (first == 0xe0)
		low = 0xa0;
	else if (first == 0xed)
		high = 0x9f; /* surrogates are no characters */
	else if (first == 0xf0)
		low = 0x90;
	else if (first == 0xf4)
		high = 0x8f;
	for (unsigned i = 1; i < length; i++, low = 0x80, high = 0xbf)
		if (at[i] < low || at[i] > high)
			return 0;
	return length;
}

static bool skip_string(struct cursor *c)
{
	if (!next_is(c, '"'))
		return false;
	while (c->at < c->end) {
		unsigned length = character((const unsigned char *)c->at, (const unsigned char *)c->end);
		char byte = *c->at;

		if (!length || (unsigned char)byte < 0x20)
			return false;
		c->at += length;
		if (byte == '"')
			return true;
		if (byte != '\\')
			continue;
		if (c->at == c->end || !memchr("\"\\/bfnrtu", *c->at, 9))
			return false;
		if (*c->at++ == 'u' && code_unit(c) < 0)
			return false;
	}
	return false;
}

static bool skip_digits(struct cursor *c)
{
	const char *begin = c->at;

	while (c->at < c->end && *c->at >= '0' && *c->at <= '9')
		c->at++;
	return c->at > begin;
}

static bool skip_number(struct cursor *c)
{
	next_is(c, '-');
	if (!next_is(c, '0') && !skip_digits(c))
		return false;
	if (next_is(c, '.') && !skip_digits(c))
		return false;
	if (next_is(c, 'e') || next_is(c, 'E')) {
		if (!next_is(c, '+'))
			next_is(c, '-');
		return skip_digits(c);
	}
	return true;
}

static bool skip_word(struct cursor *c, const char *word)
{
	size_t length = strlen(word);

	if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0)
		return false;
	c->at += length;
	return true;
}

static bool skip_value(struct cursor *c, unsigned depth);

static bool skip_members(struct cursor *c, unsigned depth, char last, bool keys)
{
	c->at++;
	skip_space(c);
	if (next_is(c, last))
		return true;
	do {
		skip_space(c);
		if (keys) {
			if (!skip_string(c))
				return false;
			skip_space(c);
			if (!next_is(c, ':'))
				return false;
			skip_space(c);
		}
		if (!skip_value(c, depth))
			return false;
		skip_space(c);
	} while (next_is(c, ','));
	return next_is(c, last);
}

/* @depth: so many objects and arrays may still be opened */
static bool skip_value(struct cursor *c, unsigned depth)
{
	if (c->at == c->end)
		return false;
	switch (*c->at) {
	case '{':
		return depth && skip_members(c, depth - 1, '}', true);
	case '[':
		return depth && skip_members(c, depth - 1, ']', false);
	case '"':
		return skip_string(c);
	case 't':
		return skip_word(c, "true");
	case 'f':
		return skip_word(c, "false");
	case 'n':
		return skip_word(c, "null");
	default:
		return skip_number(c);
	}
}

int mk_document_read(struct mk_document *document, const char *text, size_t length)
{
	struct cursor c = {text, text + length};
	const char *begin;

	skip_space(&c);
	begin = c.at;
	if (c.at == c.end || *c.at != '{' || !skip_value(&c, MK_DOCUMENT_DEPTH))
		return -EBADMSG;
	*document = (struct mk_document){begin, (size_t)(c.at - begin)};
	skip_space(&c);
	return c.at == c.end ? 0 : -EBADMSG;
}

/* --- looking up ------------------------------------------------------------------------------------------------- */

/* What an escape stands for: @unit, or with the next one, which is taken then, a character beyond 16 bits. */
static uint32_t join_surrogates(struct cursor *c, uint32_t unit)
{
	struct cursor ahead = *c;
	int32_t low;

	if (unit < 0xd800 || unit > 0xdbff || !next_is(&ahead, '\\') || !next_is(&ahead, 'u'))
		return unit;
	low = code_unit(&ahead);
	if (low < 0xdc00 || low > 0xdfff)
		return unit;
	*c = ahead;
	return 0x10000 + ((unit - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
}

static unsigned encode(uint32_t code, char *to)
{
	if (code >= 0xdc80 && code <= 0xdcff) { /* a byte that was no UTF-8 */
		to[0] = (char)(code & 0xff);
		return 1;
	}
	if (code >= 0xd800 && code <= 0xdfff) /* half a character */
		code = 0xfffd;
	if (code < 0x80) {
		to[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		to[0] = (char)(0xc0 | code >> 6);
		to[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		to[0] = (char)(0xe0 | code >> 12);
		to[1] = (char)(0x80 | (code >> 6 & 0x3f));
		to[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	to[0] = (char)(0xf0 | code >> 18);
	to[1] = (char)(0x80 | (code >> 12 & 0x3f));
	to[2] = (char)(0x80 | (code >> 6 & 0x3f));
	to[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

static uint32_t escaped(struct cursor *c)
{
	static const char letters[] = "bfnrt", meant[] = "\b\f\n\r\t";
	char letter = *c->at++;
	const char *known = memchr(letters, letter, 5);

	if (letter == 'u')
		return join_surrogates(c, (uint32_t)code_unit(c));
	return (unsigned char)(known ? meant[known - letters] : letter);
}

/* Copy the string at the cursor, which was checked, and go past it. @return as mk_document_string */
static int take_string(struct cursor *c, char *to, size_t room)
{
	size_t length = 0;
	int result = 0;

	for (c->at++; *c->at != '"';) {
		char bytes[4];
		unsigned size = 1;

		bytes[0] = *c->at++;
		if (bytes[0] == '\\')
			size = encode(escaped(c), bytes);
		if (size == 1 && !bytes[0])
			result = -EINVAL;
		else if (!result && length + size >= room)
			result = -EMSGSIZE;
		if (result)
			continue;
		memcpy(to + length, bytes, size);
		length += size;
	}
	c->at++;
	to[length] = 0;
	return result;
}

/* Go to the value of the last member called @key. */
static bool find(const struct mk_document *document, const char *key, struct cursor *value)
{
	struct cursor c = {document->text + 1, document->text + document->length};
	bool found = false;

	skip_space(&c);
	while (*c.at != '}') {
		char name[MK_DOCUMENT_KEY];
		bool same;

		same = !take_string(&c, name, sizeof(name)) && strcmp(name, key) == 0;
		skip_space(&c);
		c.at++; /* the colon */
		skip_space(&c);
		if (same) {
			*value = c;
			found = true;
		}
		skip_value(&c, MK_DOCUMENT_DEPTH);
		skip_space(&c);
		next_is(&c, ',');
		skip_space(&c);
	}
	return found;
}

int mk_document_number(const struct mk_document *document, const char *key, int64_t *value)
{
	struct cursor c;
	const char *begin;
	int64_t number = 0;
	bool negative;

	if (!find(document, key, &c))
		return -ENOENT;
	negative = next_is(&c, '-');
	begin = c.at;
	while (*c.at >= '0' && *c.at <= '9')
		/* Downwards: there is one more negative number than positive ones. */
		if (__builtin_mul_overflow(number, 10, &number) ||
		    __builtin_sub_overflow(number, *c.at++ - '0', &number))
			return -EINVAL;
	if (c.at == begin || *c.at == '.' || *c.at == 'e' || *c.at == 'E' || (!negative && number == INT64_MIN))
		return -EINVAL;
	*value = negative ? number : -number;
	return 0;
}

int mk_document_truth(const struct mk_document *document, const char *key, bool *value)
{
	struct cursor c;

	if (!find(document, key, &c))
		return -ENOENT;
	*value = *c.at == 't';
	return *c.at == 't' || *c.at == 'f' ? 0 : -EINVAL;
}

int mk_document_object(const struct mk_document *document, const char *key, struct mk_document *value)
{
	struct cursor c;
	const char *begin;

	if (!find(document, key, &c))
		return -ENOENT;
	begin = c.at;
	if (*begin != '{')
		return -EINVAL;
	skip_value(&c, MK_DOCUMENT_DEPTH);
	*value = (struct mk_document){begin, (size_t)(c.at - begin)};
	return 0;
}

int mk_document_string(const struct mk_document *document, const char *key, char *value, size_t room)
{
	struct cursor c;

	if (!find(document, key, &c))
		return -ENOENT;
	return *c.at == '"' ? take_string(&c, value, room) : -EINVAL;
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

static void put(struct mk_document_writer *w, const char *bytes, size_t length)
{
	w->full = w->full || length > w->room - w->length;
	if (w->full)
		return;
	memcpy(w->text + w->length, bytes, length);
	w->length += length;
}

static void put_key(struct mk_document_writer *w, const char *key)
{
	if (w->length && w->text[w->length - 1] != '{')
		put(w, ",", 1);
	put(w, "\"", 1);
	put(w, key, strlen(key));
	put(w, "\":", 2);
}

void mk_document_begin(struct mk_document_writer *w, char *text, size_t room)
{
	*w = (struct mk_document_writer){.text = text, .room = room};
	put(w, "{", 1);
}

void mk_document_put_string(struct mk_document_writer *w, const char *key, const char *value)
{
	const unsigned char *at = (const unsigned char *)value, *end = at + strlen(value);

	put_key(w, key);
	put(w, "\"", 1);
	while (at < end) {
		unsigned length = character(at, end);
		char escape[8];

		if (length && *at >= 0x20 && *at != '"' && *at != '\\') {
			put(w, (const char *)at, length);
			at += length;
			continue;
		}
		/* A byte that is no UTF-8 goes as Python's surrogateescape has it. */
		snprintf(escape, sizeof(escape), "\\u%04x", length ? *at : 0xdc00u | *at);
		put(w, escape, 6);
		at++;
	}
	put(w, "\"", 1);
}

void mk_document_put_number(struct mk_document_writer *w, const char *key, int64_t value)
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%lld", (long long)value);

	put_key(w, key);
	put(w, digits, (size_t)length);
}

void mk_document_put_seconds(struct mk_document_writer *w, const char *key, int64_t milliseconds)
{
	char digits[32];
	int length = snprintf(digits, sizeof(digits), "%lld.%03d", (long long)(milliseconds / 1000),
			      (int)(milliseconds % 1000));

	put_key(w, key);
	put(w, digits, (size_t)length);
}

void mk_document_put_null(struct mk_document_writer *w, const char *key)
{
	put_key(w, key);
	put(w, "null", 4);
}

void mk_document_open(struct mk_document_writer *w, const char *key)
{
	put_key(w, key);
	put(w, "{", 1);
}

void mk_document_close(struct mk_document_writer *w)
{
	put(w, "}", 1);
}

int mk_document_end(struct mk_document_writer *w)
{
	put(w, "}", 1);
	return w->full ? -EMSGSIZE : (int)w->length;
}
