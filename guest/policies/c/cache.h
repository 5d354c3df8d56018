/* The cache as the policy sees it. */
#ifndef CACHE_H
#define CACHE_H

#include "age.h"

/* An image and who needs it. */
typedef struct {
    const larder_image_types_image_handle_t *handle;
    const larder_image_usage_image_usage_t *usage;
} image;

typedef struct {
    image *all;
    size_t count;
} images;

/* Every visible image, newest created first. False where a call failed: then `error` says why. */
bool cache_images(images *result, text *error);

/* Stages the removal of an image and explains it.
 *
 * What is in use after all, or is not this run's to remove, is kept, and that is explained. False only where the
 * whole run is pointless: then `error` says why.
 */
bool cache_remove(slice reference, const text *reason, text *error);

void cache_explain(slice reference, const text *reason);

/* An instant that is given and that the contract allows. */
bool instant_given(const larder_image_types_option_datetime_t *option);

#endif
