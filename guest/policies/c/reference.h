/* Image references: how their spellings compare. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "text.h"

/* The normalized repository of a reference: `docker.io/library/python` of `python:3.12`. */
slice repository_of(slice reference);

#endif
