/* Removes what was not used for a time.
 *
 * An instance of a policy lives for one call, and its memory goes with it: what the host gives is not freed here. There
 * is no `printf`, which would import WASI: `larder_image_report_log` takes its place.
 */
#include "image_policy.h"
#include "json.h"
#include "text.h"

#include <stdlib.h>

#define CONFIG_SCHEMA                                                                                       \
    "{\"type\":\"object\",\"properties\":{\"max-age-days\":{\"type\":\"integer\",\"minimum\":0,"            \
    "\"maximum\":4294967295,\"default\":30,"                                                                \
    "\"description\":\"What was not used for more days than this is removed.\"}},\"additionalProperties\":false}"

void exports_larder_image_policy_describe(exports_larder_image_policy_description_t *description) {
    /* Copies, because the bindings free them after the call. */
    image_policy_string_dup(&description->name, "@NAME@");
    image_policy_string_dup(&description->version, "0.1.0");
    image_policy_string_dup(&description->summary, "Removes what was not used for a time.");
    image_policy_string_dup(&description->config_schema, CONFIG_SCHEMA);
}

/* Reads the config. False if it does not conform: then `error` says why. */
static bool read_config(slice document, uint32_t *max_age_days, text *error) {
    json_reader reader = json_open(document);
    json_value value;
    slice key;
    int64_t days;
    *max_age_days = 30;
    while (json_next(&reader, &key, &value)) {
        if (!slice_is(key, "max-age-days")) {
            text_add(error, "config of @NAME@: unknown key `");
            text_add_slice(error, key);
            text_add(error, "`: the only key is `max-age-days`");
            return false;
        }
        if (!json_integer(&value, &days) || days < 0 || days > UINT32_MAX) {
            text_add(error, "config of @NAME@: `max-age-days`: expected a whole number of days");
            return false;
        }
        *max_age_days = (uint32_t)days;
    }
    if (reader.broken) text_add(error, "config of @NAME@: expected a JSON object");
    return !reader.broken;
}

static void explain(slice reference, text *reason) {
    slice words = text_slice(reason);
    larder_image_report_explain(&reference, &words);
}

/* Removes an image, or explains why it may not be removed. False if the whole plan is refused. */
static bool remove_because(slice reference, text *reason, text *error) {
    larder_image_types_error_t failure;
    if (!larder_image_images_remove(&reference, false, &failure)) {
        bool denied = failure.tag == LARDER_IMAGE_TYPES_ERROR_DENIED;
        if (!denied && failure.tag != LARDER_IMAGE_TYPES_ERROR_IMAGE_IN_USE) {
            text_add_slice(error, reference);
            text_add(error, " could not be removed");
            return false;
        }
        /* Beyond a cap of the grant, the whole plan is refused. */
        if (denied && failure.val.denied.right == LARDER_IMAGE_TYPES_RIGHT_BUDGET) {
            text_add_slice(error, failure.val.denied.message);
            return false;
        }
        text_add(reason, "; kept because ");
        if (!denied) {
            text_add(reason, "something uses it");
        } else if (failure.val.denied.right == LARDER_IMAGE_TYPES_RIGHT_PROTECTED) {
            text_add(reason, "the operator protects it");
        } else {
            text_add(reason, "the grant does not let this policy remove it");
        }
    }
    explain(reference, reason);
    return true;
}

/* Returns whole days: 0 for an instant in the future, and the most there are for none. */
static uint64_t days_since(larder_image_types_option_datetime_t instant, larder_image_types_datetime_t now) {
    if (!instant.is_some) return UINT64_MAX;
    if (instant.val.seconds >= now.seconds) return 0;
    uint64_t seconds = (uint64_t)now.seconds - (uint64_t)instant.val.seconds;
    return (seconds - (instant.val.nanoseconds > now.nanoseconds)) / 86400;
}

/* Tells whether an image is removed, and why. */
static bool decide(const larder_image_types_image_handle_t *handle, const larder_image_usage_image_usage_t *usage,
                   larder_image_types_datetime_t now, uint32_t max_age_days, text *reason) {
    if (usage->sandboxes > 0 || usage->snapshots > 0) {
        text_add(reason, "in use");
        return false;
    }
    if (usage->pinned) {
        text_add(reason, "pinned by the operator");
        return false;
    }
    if (!handle->last_used_at.is_some && !handle->arrived_at.is_some) {
        text_add(reason, "neither a last use nor an arrival is recorded");
        return false;
    }
    /* An arrival counts as a use. */
    uint64_t used = days_since(handle->last_used_at, now), arrived = days_since(handle->arrived_at, now);
    uint64_t days = used < arrived ? used : arrived;
    text_add(reason, "not used for ");
    text_add_number(reason, days);
    text_add(reason, days > max_age_days ? "d, which is longer than " : "d, which is within ");
    text_add_number(reason, max_age_days);
    text_add(reason, "d");
    return days > max_age_days;
}

bool exports_larder_image_policy_evaluate(exports_larder_image_policy_request_t *request, image_policy_string_t *error) {
    text message = {0};
    uint32_t max_age_days;
    larder_image_images_list_image_handle_t images;
    larder_image_usage_list_image_usage_t usages;
    larder_image_types_error_t failure;
    bool good = read_config(request->config, &max_age_days, &message);
    if (good && !(larder_image_images_list(&images, &failure) && larder_image_usage_get_usage(NULL, &usages, &failure))) {
        text_add(&message, "the images could not be listed");
        good = false;
    }
    /* The oldest first: a run with a goal ends as soon as that is met. */
    for (size_t at = good ? images.len : 0; good && at-- > 0;) {
        slice reference = images.ptr[at].reference;
        text reason = {0};
        /* Usages are in the order of the images. */
        if (decide(&images.ptr[at], &usages.ptr[at], request->now, max_age_days, &reason)) {
            good = remove_because(reference, &reason, &message);
        } else {
            explain(reference, &reason);
        }
        free(reason.bytes);
    }
    /* The bindings free it after the call. */
    if (!good) *error = text_slice(&message);
    return good;
}
