/* Files are found in an initrd's archive by their names, also by long ones; whatever the bytes are, nothing outside of
 * them is looked at. */
#include "harness.h"

#include "../kernel.h"

#define BLOCK 512u

static char archive[64 * BLOCK];
static size_t archived;

/* One header and its content. */
static void put(const char *name, char type, const char *content, size_t length)
{
	char *header = archive + archived, digits[24];

	CHECK(archived + BLOCK + length + BLOCK <= sizeof(archive));
	memset(header, 0, BLOCK + length + BLOCK);
	memcpy(header, name, strlen(name) < 100 ? strlen(name) : 100);
	snprintf(digits, sizeof(digits), "%011zo", length);
	memcpy(header + 124, digits, 11);
	header[156] = type;
	memcpy(header + BLOCK, content, length);
	archived += BLOCK + (length + BLOCK - 1) / BLOCK * BLOCK;
}

static void put_text(const char *name, const char *content)
{
	put(name, '0', content, strlen(content));
}

static void finish(void)
{
	CHECK(archived + 2 * BLOCK <= sizeof(archive));
	memset(archive + archived, 0, 2 * BLOCK);
	archived += 2 * BLOCK;
}

/* What an instance that was given these bytes as a directory finds. */
static const char *find(const char *bytes, size_t size, const char *name, size_t *length)
{
	struct mk_kernel k = {.initrd = {bytes, size}, .initrd_is_archive = true};

	return mk_kernel_initrd(&k, name, length);
}

static void expect(const char *name, const char *content)
{
	size_t length = 99;
	const char *found = find(archive, archived, name, &length);

	CHECK(!!found == !!content);
	if (content) {
		CHECK_EQ(length, strlen(content));
		CHECK(!memcmp(found, content, length));
	}
}

static void files_are_found_by_their_names(void)
{
	char block[BLOCK + 1] = "";

	memset(block, 'x', BLOCK);
	archived = 0;
	put_text("a", "first");
	put_text("dir/empty", "");
	put_text("dir/block", block);
	put_text("dir/b", "last");
	finish();
	expect("a", "first");
	expect("dir/empty", "");
	expect("dir/block", block);
	expect("dir/b", "last");
	expect("dir", NULL);
	expect("b", NULL);
	expect("", NULL);
}

static void long_names_stand_in_a_header_of_their_own(void)
{
	char name[151] = "", line[200];

	memset(name, 'n', 150);
	archived = 0;
	snprintf(line, sizeof(line), "21 hdrcharset=BINARY\n160 path=%s\n", name);
	put("././@PaxHeader", 'x', line, strlen(line));
	put_text(name, "of a long name");
	put_text("after", "the end");
	finish();
	expect(name, "of a long name");
	expect("after", "the end");
	name[100] = 0;
	expect(name, NULL);
	expect("././@PaxHeader", NULL);
}

/* Each bad archive in memory of exactly its size, so that the sanitizer sees a look beyond it. */
static void look(const char *bytes, size_t size)
{
	static const char *const names[] = {"a", "dir/b", "nothing", "a longer", ""};
	char *exact = malloc(size ? size : 1);

	CHECK(exact);
	memcpy(exact, bytes, size);
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t length = 0;
		const char *found = find(exact, size, names[i], &length);

		CHECK(!found || (found >= exact + BLOCK && found + length <= exact + size));
	}
	free(exact);
}

static void a_damaged_archive_is_looked_at_and_nothing_beyond_it(void)
{
	struct random r = random_from(1);
	char bad[sizeof(archive)];

	files_are_found_by_their_names();
	archived -= 2 * BLOCK;
	put("././@PaxHeader", 'x', "21 hdrcharset=BINARY\n17 path=a longer\n", 38);
	put_text("x", "12345");
	finish();
	expect("a longer", "12345");
	for (size_t size = 0; size <= archived; size++)
		look(archive, size);
	for (unsigned n = 0; n < 20000; n++) {
		size_t size = archived - (below(&r, 4) ? 0 : below(&r, archived));

		memcpy(bad, archive, archived);
		for (unsigned i = 0; i < 1 + below(&r, 6); i++)
			bad[below(&r, archived)] = (char)draw(&r);
		look(bad, size);
	}
}

static const struct test tests[] = {
	TEST(files_are_found_by_their_names),
	TEST(long_names_stand_in_a_header_of_their_own),
	TEST(a_damaged_archive_is_looked_at_and_nothing_beyond_it),
};

RUN_TESTS(tests)
