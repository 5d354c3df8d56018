//! Images of a cache as archives.
