/* A map from texts to counts, made for a number of keys that is known. It keeps the keys' bytes where they are. */
#ifndef MAP_H
#define MAP_H

#include "text.h"

typedef struct {
    slice key;
    bool taken;
    uint32_t count;
} map_slot;

typedef struct {
    map_slot *slots;
    size_t mask;
} map;

/* Makes an empty map for at most this many keys. */
map map_for(size_t keys);

/* Returns where the count of a key is kept: 0 for a key that is new. */
uint32_t *map_entry(map *in, slice key);

#endif
