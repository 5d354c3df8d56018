#include "cache.h"

#include <stdlib.h>

/* The number of images that are read at a time: enough that calls are few. */
#define PAGE 1024

/* Adds an error as a sentence for the operator. */
static void add_error(text *to, const larder_image_types_error_t *error) {
    switch (error->tag) {
    case LARDER_IMAGE_TYPES_ERROR_IMAGE_NOT_FOUND:
        text_add(to, "the cache has no image `");
        text_add_slice(to, error->val.image_not_found);
        text_add(to, "` that this policy may see");
        break;
    case LARDER_IMAGE_TYPES_ERROR_IMAGE_IN_USE:
        text_add(to, "`");
        text_add_slice(to, error->val.image_in_use.reference);
        text_add(to, "` is in use");
        break;
    case LARDER_IMAGE_TYPES_ERROR_UNSUPPORTED: text_add_slice(to, error->val.unsupported); break;
    case LARDER_IMAGE_TYPES_ERROR_DENIED: text_add_slice(to, error->val.denied.message); break;
    case LARDER_IMAGE_TYPES_ERROR_INVALID_REFERENCE:
        text_add(to, "`");
        text_add_slice(to, error->val.invalid_reference.f0);
        text_add(to, "`: ");
        text_add_slice(to, error->val.invalid_reference.f1);
        break;
    default: text_add_slice(to, error->val.other);
    }
}

static bool fail(text *to, larder_image_types_error_t *error) {
    add_error(to, error);
    larder_image_types_error_free(error);
    return false;
}

/* Adds a page of images, with their usage, which comes in the order of the references that are asked for. */
static bool add_page(images *to, const larder_image_images_list_image_handle_t *page, text *error) {
    slice *references = allocate(page->len, sizeof(slice));
    for (size_t at = 0; at < page->len; at++) references[at] = page->ptr[at].reference;
    image_policy_list_string_t asked = {references, page->len};
    larder_image_usage_list_image_usage_t usages;
    larder_image_types_error_t failure;
    if (!larder_image_usage_get_usage(&asked, &usages, &failure)) return fail(error, &failure);
    free(references);
    to->all = reallocate(to->all, to->count + page->len, sizeof(image));
    for (size_t at = 0; at < page->len; at++) to->all[to->count++] = (image){&page->ptr[at], &usages.ptr[at]};
    return true;
}

bool cache_images(images *result, text *error) {
    *result = (images){0};
    larder_image_images_image_filter_t filter = {
        .order = LARDER_IMAGE_IMAGES_ORDER_CREATED_NEWEST_FIRST,
        .limit = {true, PAGE},
    };
    for (;;) {
        larder_image_images_list_image_handle_t page;
        larder_image_types_error_t failure;
        if (!larder_image_images_select(&filter, &page, &failure)) return fail(error, &failure);
        if (page.len == 0) return true;
        if (!add_page(result, &page, error)) return false;
        filter.after.is_some = true;
        filter.after.val = page.ptr[page.len - 1].reference;
    }
}

/* Returns why a removal came to nothing, if the run can go on; NULL if the whole plan is refused. */
static const char *obstacle(const larder_image_types_error_t *error) {
    if (error->tag == LARDER_IMAGE_TYPES_ERROR_IMAGE_IN_USE) return "something uses it";
    if (error->tag != LARDER_IMAGE_TYPES_ERROR_DENIED) return NULL;
    switch (error->val.denied.right) {
    case LARDER_IMAGE_TYPES_RIGHT_REMOVE: return "the grant does not let this policy remove it";
    case LARDER_IMAGE_TYPES_RIGHT_PROTECTED: return "the operator protects it";
    default: return NULL;
    }
}

bool cache_remove(slice reference, const text *reason, text *error) {
    larder_image_types_error_t failure;
    if (larder_image_images_remove(&reference, false, &failure)) {
        cache_explain(reference, reason);
        return true;
    }
    const char *why = obstacle(&failure);
    if (why == NULL) return fail(error, &failure);
    larder_image_types_error_free(&failure);
    text kept = {0};
    text_add_slice(&kept, text_slice(reason));
    text_add(&kept, "; kept because ");
    text_add(&kept, why);
    cache_explain(reference, &kept);
    free(kept.bytes);
    return true;
}

void cache_explain(slice reference, const text *reason) {
    slice words = text_slice(reason);
    larder_image_report_explain(&reference, &words);
}

bool instant_given(const larder_image_types_option_datetime_t *option) {
    return option->is_some && option->val.nanoseconds < 1000000000u;
}
