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

/* Sorts by arrival, the newest first and those without one last; those of one instant by reference. */
static int newest_first(const void *left, const void *right) {
    const larder_image_types_image_handle_t *a = ((const image *)left)->handle, *b = ((const image *)right)->handle;
    bool a_dated = instant_given(&a->arrived_at), b_dated = instant_given(&b->arrived_at);
    if (a_dated != b_dated) return a_dated ? -1 : 1;
    int order = a_dated ? instant_compare(b->arrived_at.val, a->arrived_at.val) : 0;
    return order != 0 ? order : slice_compare(a->reference, b->reference);
}

static void add_count(text *to, uint32_t count, const char *one, const char *many) {
    text_add_number(to, count);
    text_add(to, count == 1 ? one : many);
}

/* Adds why no policy should remove an image; false if nothing holds it. */
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

/* Adds the last use or arrival of an image in words, whichever is later, and returns how long ago it was. An instant in
 * the future has no age: it counts as just now. */
static age add_touched(text *to, const larder_image_types_image_handle_t *handle, instant now) {
    bool used = instant_given(&handle->last_used_at), arrived = instant_given(&handle->arrived_at);
    instant touched = used ? handle->last_used_at.val : handle->arrived_at.val;
    if (used && arrived && instant_compare(handle->arrived_at.val, touched) > 0) {
        touched = handle->arrived_at.val;
        text_add(to, "arrived ");
    } else {
        text_add(to, used ? "last used " : "never used and arrived ");
    }
    age idle = {0};
    if (age_of(touched, now, &idle)) {
        age_write(to, idle);
        text_add(to, " ago");
    } else {
        text_add(to, "in the future");
    }
    return idle;
}

/* Tells whether an image is removed that is the `rank`th newest of its repository, counted from 1; 0 is no rank. */
static bool decide(const config *config, instant now, const image *image, uint32_t rank, text *reason) {
    slice repository = image->handle->repository;
    if (add_holder(reason, image->usage)) return false;
    if (rank == 0) {
        text_add(reason, "its arrival is not recorded, so its place in ");
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
    text_add(reason, ", ");
    age idle = add_touched(reason, image->handle, now), within = config->used_within;
    bool longer = idle.seconds > within.seconds || (idle.seconds == within.seconds && idle.nanoseconds > 0);
    text_add(reason, longer ? ", which is longer than " : ", which is within ");
    age_write(reason, within);
    return longer;
}

/* Returns the place of each image among those of its repository, counted from 1; 0 if its arrival is not recorded. */
static uint32_t *ranks_of(const images *newest_first) {
    map counts = map_for(newest_first->count);
    uint32_t *ranks = allocate(newest_first->count, sizeof(uint32_t));
    for (size_t at = 0; at < newest_first->count; at++) {
        const larder_image_types_image_handle_t *handle = newest_first->all[at].handle;
        if (instant_given(&handle->arrived_at)) ranks[at] = ++*map_entry(&counts, handle->repository);
    }
    return ranks;
}

static bool evaluate(const config *config, instant now, text *error) {
    images images;
    if (!cache_images(&images, error)) return false;
    qsort(images.all, images.count, sizeof(image), newest_first);
    const uint32_t *ranks = ranks_of(&images);
    /* The oldest first: a run with a goal ends as soon as that is met. */
    for (size_t at = images.count; at-- > 0;) {
        const image *image = &images.all[at];
        slice reference = image->handle->reference;
        text reason = {0};
        bool good = true;
        if (decide(config, now, image, ranks[at], &reason)) {
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
        text_add(&message, "config of " POLICY_NAME ": `keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: "
                           "set `keep` to at least 1, or set `used-within`");
        good = false;
    }
    good = good && evaluate(&config, request->now, &message);
    /* The bindings free it after the call. */
    if (!good) *error = text_slice(&message);
    return good;
}
