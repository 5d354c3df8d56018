//! Real guests.
