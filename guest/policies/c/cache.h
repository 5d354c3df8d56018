/* The cache as the policy sees it. */
#ifndef CACHE_H
#define CACHE_H

#include "age.h"

/* An image and its users. */
typedef struct {
    const larder_image_types_image_handle_t *handle;
    const larder_image_usage_image_usage_t *usage;
} image;

typedef struct {
    image *all;
    size_t count;
} images;

/* Reads every visible image, newest created first. False if a call failed: then `error` says why. */
bool cache_images(images *result, text *error);

/* Stages the removal of an image and explains it.
 *
 * If the image is in use after all, or if the run lacks the right to remove it, the image is kept, which is explained,
 * too. False if the whole plan is refused: then `error` says why.
 */
bool cache_remove(slice reference, const text *reason, text *error);

void cache_explain(slice reference, const text *reason);

/* Tells whether an instant is given, and one that the contract allows. */
bool instant_given(const larder_image_types_option_datetime_t *option);

#endif
