/* Removes what nobody used for a time.
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
    "\"description\":\"What was not used for more days than this goes.\"}},\"additionalProperties\":false}"

void exports_larder_image_policy_describe(exports_larder_image_policy_description_t *description) {
    /* Copies, because the bindings free them after the call. */
    image_policy_string_dup(&description->name, "@NAME@");
    image_policy_string_dup(&description->version, "0.1.0");
    image_policy_string_dup(&description->summary, "Removes what nobody used for a time.");
    image_policy_string_dup(&description->config_schema, CONFIG_SCHEMA);
}

/* False where the config does not conform: then `error` says why. */
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

/* Removes an image, or explains why it may not. False where the whole run is pointless. */
static bool remove_because(slice reference, text *reason, text *error) {
    larder_image_types_error_t failure;
    if (larder_image_images_remove(&reference, false, &failure)) {
        explain(reference, reason);
        return true;
    }
    switch (failure.tag) {
    case LARDER_IMAGE_TYPES_ERROR_IMAGE_IN_USE: text_add(reason, "; kept because something uses it"); break;
    case LARDER_IMAGE_TYPES_ERROR_DENIED:
        /* Past a cap of the grant, the whole plan is refused. */
        if (failure.val.denied.right == LARDER_IMAGE_TYPES_RIGHT_BUDGET) {
            text_add_slice(error, failure.val.denied.message);
            return false;
        }
        text_add(reason, "; kept because ");
        text_add_slice(reason, failure.val.denied.message);
        break;
    default: text_add(error, "an image could not be removed"); return false;
    }
    explain(reference, reason);
    return true;
}

/* Whole days; none for an instant in the future. */
static uint64_t days_since(larder_image_types_datetime_t touched, larder_image_types_datetime_t now) {
    if (touched.seconds >= now.seconds) return 0;
    uint64_t seconds = (uint64_t)now.seconds - (uint64_t)touched.seconds;
    return (seconds - (touched.nanoseconds > now.nanoseconds)) / 86400;
}

/* Whether an image goes, and why. */
static bool decide(const larder_image_types_image_handle_t *handle, const larder_image_usage_image_usage_t *usage,
                   larder_image_types_datetime_t now, uint32_t max_age_days, text *reason) {
    bool used = handle->last_used_at.is_some;
    if (usage->sandboxes > 0 || usage->snapshots > 0) {
        text_add(reason, "in use");
        return false;
    }
    if (usage->pinned) {
        text_add(reason, "pinned by the operator");
        return false;
    }
    if (!used && !handle->created_at.is_some) {
        text_add(reason, "neither a last use nor a creation is on record");
        return false;
    }
    uint64_t days = days_since(used ? handle->last_used_at.val : handle->created_at.val, now);
    text_add(reason, used ? "last used " : "never used and created ");
    text_add_number(reason, days);
    text_add(reason, days > max_age_days ? "d ago, which is longer than " : "d ago, which is within ");
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
    if (good && !(larder_image_images_list(&images, &failure) && larder_image_usage_list_usage(&usages, &failure))) {
        text_add(&message, "the images could not be listed");
        good = false;
    }
    /* Usages stand in the order of the images. */
    for (size_t at = 0; good && at < images.len; at++) {
        slice reference = images.ptr[at].reference;
        text reason = {0};
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
