//! What authors of policies start from and build with, in every language.
