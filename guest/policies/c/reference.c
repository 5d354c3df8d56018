#include "reference.h"

#include <string.h>

static size_t find(slice in, uint8_t byte) {
    const uint8_t *found = in.len > 0 ? memchr(in.ptr, byte, in.len) : NULL;
    return found != NULL ? (size_t)(found - in.ptr) : in.len;
}

static slice before(slice whole, size_t at) { return (slice){whole.ptr, at}; }

static slice behind(slice whole, size_t at) { return (slice){whole.ptr + at, whole.len - at}; }

/* What is left without tag and digest. A colon before the last slash is a registry's port. */
static slice name_of(slice reference) {
    slice tagged = before(reference, find(reference, '@'));
    size_t segment = tagged.len;
    while (segment > 0 && tagged.ptr[segment - 1] != '/') segment--;
    return before(tagged, segment + find(behind(tagged, segment), ':'));
}

slice repository_of(slice reference) {
    slice registry = slice_of("docker.io"), path = name_of(reference);
    size_t slash = find(path, '/');
    slice first = before(path, slash);
    bool is_registry = slice_is(first, "localhost") || find(first, '.') < slash || find(first, ':') < slash;
    if (slash < path.len && is_registry) {
        path = behind(path, slash + 1);
        if (!slice_is(first, "index.docker.io")) registry = first;
    }
    text repository = {0};
    text_add_slice(&repository, registry);
    text_add(&repository, "/");
    if (slice_is(registry, "docker.io") && find(path, '/') == path.len) text_add(&repository, "library/");
    text_add_slice(&repository, path);
    return text_slice(&repository);
}
