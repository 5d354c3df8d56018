//! EROFS images as bytes, written and read. Knows no OCI and no cache.
