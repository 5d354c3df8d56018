/* A map from texts to pointers, made for a number of keys that is known. It keeps the keys' bytes where they are. */
#ifndef MAP_H
#define MAP_H

#include "text.h"

typedef struct {
    slice key;
    bool taken;
    void *value;
} map_slot;

typedef struct {
    map_slot *slots;
    size_t mask;
} map;

/* An empty map for at most this many keys. */
map map_for(size_t keys);

/* Where the value of a key is kept; null in there for a key that is new. */
void **map_entry(map *in, slice key);

/* The value of a key, null where there is none. It is gone from the map then. */
void *map_take(map *from, slice key);

#endif
