/* Keeps the newest images of each repository and what was used of late, and removes the rest.
 *
 * An instance of a policy lives for one call, and its memory goes with it. So what is read from the host is never
 * freed here; what is made once for each image is.
 */
#include "policy.h"

#include <stdlib.h>

#include "cache.h"
#include "config.h"
#include "map.h"
#include "reference.h"

/* By creation, the newest first and those without a date last; of one instant, by reference. */
static int newest_first(const void *left, const void *right) {
    const larder_image_types_image_handle_t *a = ((const image *)left)->handle, *b = ((const image *)right)->handle;
    bool a_dated = instant_given(&a->created_at), b_dated = instant_given(&b->created_at);
    if (a_dated != b_dated) return a_dated ? -1 : 1;
    int order = a_dated ? instant_compare(b->created_at.val, a->created_at.val) : 0;
    return order != 0 ? order : slice_compare(a->reference, b->reference);
}

static void add_count(text *to, uint32_t count, const char *one, const char *many) {
    text_add_number(to, count);
    text_add(to, count == 1 ? one : many);
}

/* Why nobody should even try to remove an image; false where nothing holds it. */
static bool add_holder(text *to, const larder_image_usage_image_usage_t *usage) {
    if (usage->sandboxes > 0 || usage->snapshots > 0) {
        text_add(to, "in use by ");
        if (usage->sandboxes > 0) add_count(to, usage->sandboxes, " sandbox", " sandboxes");
        if (usage->sandboxes > 0 && usage->snapshots > 0) text_add(to, " and ");
        if (usage->snapshots > 0) add_count(to, usage->snapshots, " snapshot", " snapshots");
        return true;
    }
    if (usage->pinned) text_add(to, "pinned by the operator");
    return usage->pinned;
}

/* `1st`, `2nd`, `3rd`, `4th`, … */
static void add_ordinal(text *to, uint32_t number) {
    uint32_t ones = number % 10, tens = number / 10 % 10;
    text_add_number(to, number);
    text_add(to, tens == 1 ? "th" : ones == 1 ? "st" : ones == 2 ? "nd" : ones == 3 ? "rd" : "th");
}

/* Whether an image goes that is the `rank`th newest of its repository, counted from 1; 0 is no rank. */
static bool decide(const config *config, instant now, const image *image, slice repository, uint32_t rank, text *reason) {
    if (add_holder(reason, image->usage)) return false;
    if (rank == 0) {
        text_add(reason, "has no creation date, so its place in ");
        text_add_slice(reason, repository);
        text_add(reason, " is unknown");
        return false;
    }
    if (rank <= config->keep) {
        text_add(reason, config->keep == 1 ? "the newest of " : "one of the ");
        if (config->keep != 1) add_count(reason, config->keep, "", " newest of ");
        text_add_slice(reason, repository);
        return false;
    }
    add_ordinal(reason, rank);
    text_add(reason, " newest of ");
    text_add_slice(reason, repository);
    if (!config->has_used_within) {
        text_add(reason, ", of which ");
        add_count(reason, config->keep, " is kept", " are kept");
        return true;
    }
    bool used = instant_given(&image->handle->last_used_at);
    instant touched = used ? image->handle->last_used_at.val : image->handle->created_at.val;
    text_add(reason, used ? ", last used " : ", never used and created ");
    /* An instant in the future has no age: it counts as just used. */
    age idle = {0}, within = config->used_within;
    if (age_of(touched, now, &idle)) {
        age_write(reason, idle);
        text_add(reason, " ago");
    } else {
        text_add(reason, "in the future");
    }
    bool longer = idle.seconds > within.seconds || (idle.seconds == within.seconds && idle.nanoseconds > 0);
    text_add(reason, longer ? ", which is longer than " : ", which is within ");
    age_write(reason, within);
    return longer;
}

static bool evaluate(const config *config, instant now, text *error) {
    images images;
    if (!cache_images(&images, error)) return false;
    qsort(images.all, images.count, sizeof(image), newest_first);
    map ranks = map_for(images.count);
    uint32_t *counters = allocate(images.count, sizeof(uint32_t)), *unused = counters;
    for (size_t at = 0; at < images.count; at++) {
        const image *image = &images.all[at];
        slice reference = image->handle->reference, repository = repository_of(reference);
        /* An image without a creation date has no place among the others. */
        uint32_t rank = 0;
        if (instant_given(&image->handle->created_at)) {
            void **counter = map_entry(&ranks, repository);
            if (*counter == NULL) *counter = unused++;
            rank = ++*(uint32_t *)*counter;
        }
        text reason = {0};
        bool good = true;
        if (decide(config, now, image, repository, rank, &reason)) {
            good = cache_remove(reference, &reason, error);
        } else {
            cache_explain(reference, &reason);
        }
        free(reason.bytes);
        if (!good) return false;
    }
    return true;
}

void exports_larder_image_policy_describe(exports_larder_image_policy_description_t *description) {
    /* Copies, because the bindings free them after the call. */
    image_policy_string_dup(&description->name, POLICY_NAME);
    image_policy_string_dup(&description->version, POLICY_VERSION);
    image_policy_string_dup(&description->summary, POLICY_SUMMARY);
    image_policy_string_dup(&description->config_schema, config_schema);
}

bool exports_larder_image_policy_evaluate(exports_larder_image_policy_request_t *request, image_policy_string_t *error) {
    config config;
    text message = {0};
    bool good = config_parse(request->config, &config, &message);
    if (good && config.keep == 0 && !config.has_used_within) {
        text_add(&message, "`keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: "
                           "set `keep` to at least 1, or set `used-within`");
        good = false;
    }
    good = good && evaluate(&config, request->now, &message);
    /* The bindings free it after the call. */
    if (!good) *error = text_slice(&message);
    return good;
}
