#include "cache.h"

#include <stdlib.h>

#include "map.h"

/* How many images are read at a time: enough that calls are few. */
#define PAGE 1024

static void add_names(text *to, const char *kind, const image_policy_list_string_t *names, size_t *left) {
    for (size_t at = 0; at < names->len; at++) {
        text_add(to, kind);
        text_add(to, " `");
        text_add_slice(to, names->ptr[at]);
        text_add(to, "`");
        --*left;
        if (*left > 0) text_add(to, *left == 1 ? " and " : ", ");
    }
}

/* An error as a sentence for the operator. */
static void add_error(text *to, const larder_image_types_error_t *error) {
    switch (error->tag) {
    case LARDER_IMAGE_TYPES_ERROR_IMAGE_NOT_FOUND:
        text_add(to, "the cache holds no image `");
        text_add_slice(to, error->val.image_not_found);
        text_add(to, "` that this policy may see");
        break;
    case LARDER_IMAGE_TYPES_ERROR_IMAGE_IN_USE: {
        const larder_image_types_image_users_t *users = &error->val.image_in_use;
        size_t left = users->sandboxes.len + users->snapshots.len;
        text_add(to, "`");
        text_add_slice(to, users->reference);
        text_add(to, "` is in use by ");
        if (left == 0) text_add(to, "a running operation");
        add_names(to, "sandbox", &users->sandboxes, &left);
        add_names(to, "snapshot", &users->snapshots, &left);
        break;
    }
    case LARDER_IMAGE_TYPES_ERROR_UNSUPPORTED: text_add_slice(to, error->val.unsupported); break;
    case LARDER_IMAGE_TYPES_ERROR_DENIED: text_add_slice(to, error->val.denied.message); break;
    case LARDER_IMAGE_TYPES_ERROR_INVALID_REFERENCE:
        text_add(to, "`");
        text_add_slice(to, error->val.invalid_reference);
        text_add(to, "` is not an image reference");
        break;
    default: text_add_slice(to, error->val.other);
    }
}

static bool fail(text *to, larder_image_types_error_t *error) {
    add_error(to, error);
    larder_image_types_error_free(error);
    return false;
}

static bool join(images *to, map *usages, const larder_image_images_list_image_handle_t *page, text *error) {
    for (size_t at = 0; at < page->len; at++) {
        const larder_image_types_image_handle_t *handle = &page->ptr[at];
        const larder_image_usage_image_usage_t *usage = map_take(usages, handle->reference);
        if (usage == NULL) {
            text_add(error, "the host lists `");
            text_add_slice(error, handle->reference);
            text_add(error, "` and has no usage for it");
            return false;
        }
        to->all[to->count++] = (image){handle, usage};
    }
    return true;
}

bool cache_images(images *result, text *error) {
    larder_image_types_error_t failure;
    larder_image_usage_list_image_usage_t usages;
    if (!larder_image_usage_list_usage(&usages, &failure)) return fail(error, &failure);
    map by_reference = map_for(usages.len);
    for (size_t at = 0; at < usages.len; at++) {
        *map_entry(&by_reference, usages.ptr[at].reference) = &usages.ptr[at];
    }
    /* Each image takes a usage of its own, so there are no more of them. */
    *result = (images){allocate(usages.len, sizeof(image)), 0};
    larder_image_images_image_filter_t filter = {
        .order = LARDER_IMAGE_IMAGES_ORDER_CREATED_NEWEST_FIRST,
        .limit = {true, PAGE},
    };
    for (;;) {
        larder_image_images_list_image_handle_t page;
        if (!larder_image_images_select(&filter, &page, &failure)) return fail(error, &failure);
        if (page.len == 0) return true;
        if (!join(result, &by_reference, &page, error)) return false;
        filter.after.is_some = true;
        filter.after.val = page.ptr[page.len - 1].reference;
    }
}

bool cache_remove(slice reference, const text *reason, text *error) {
    larder_image_types_error_t failure;
    if (larder_image_images_remove(&reference, false, &failure)) {
        cache_explain(reference, reason);
        return true;
    }
    bool denied = failure.tag == LARDER_IMAGE_TYPES_ERROR_DENIED;
    bool budget = denied && failure.val.denied.right == LARDER_IMAGE_TYPES_RIGHT_BUDGET;
    if (budget || !(denied || failure.tag == LARDER_IMAGE_TYPES_ERROR_IMAGE_IN_USE)) return fail(error, &failure);
    text kept = {0};
    text_add_slice(&kept, text_slice(reason));
    text_add(&kept, "; kept because ");
    fail(&kept, &failure);
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
