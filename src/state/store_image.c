/* store_image: raw copies of hashes. Kept because they tell cheaply what changed, serve the API's
 * reads, and can be written back where Redis has lost them. Secrets in them are sealed. */
#include "state/store_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

void image_add(struct image *image, const char *field, size_t field_length, const char *value, size_t value_length)
{
	if (image->count == image->room) {
		image->room = image->room ? image->room * 2 : 16;
		image->entries = realloc(image->entries, image->room * sizeof(*image->entries));
		CHECK(image->entries);
	}
	char *bytes = check_calloc(1, field_length + value_length + 2);
	memcpy(bytes, field, field_length);
	memcpy(bytes + field_length + 1, value, value_length);
	image->entries[image->count++] = (struct image_entry){
		.field = bytes,
		.field_length = field_length,
		.value = bytes + field_length + 1,
		.value_length = value_length,
	};
}

static int compare_entries(const void *left, const void *right)
{
	const struct image_entry *a = left, *b = right;
	size_t shorter = a->field_length < b->field_length ? a->field_length : b->field_length;
	int difference = memcmp(a->field, b->field, shorter);
	return difference ? difference : (a->field_length > b->field_length) - (a->field_length < b->field_length);
}

void image_seal(struct image *image)
{
	if (image->count)
		qsort(image->entries, image->count, sizeof(*image->entries), compare_entries);
}

bool image_equals(const struct image *a, const struct image *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		const struct image_entry *x = &a->entries[i], *y = &b->entries[i];
		if (x->field_length != y->field_length || x->value_length != y->value_length ||
			memcmp(x->field, y->field, x->field_length + x->value_length + 2) != 0)
			return false;
	}
	return true;
}

const struct image_entry *image_find(const struct image *image, const char *field)
{
	struct image_entry key = {.field = (char *)field, .field_length = strlen(field)};
	return image->count ? bsearch(&key, image->entries, image->count, sizeof(key), compare_entries) : NULL;
}

void image_fini(struct image *image)
{
	for (size_t i = 0; i < image->count; i++)
		free(image->entries[i].field);
	free(image->entries);
	memset(image, 0, sizeof(*image));
}
