//! The program, as whoever types its commands meets it: standard output, standard error and exit status of each
//! command are one snapshot, for people and for programs, with success and with failure.

#[macro_use]
mod harness;
mod authoring;
mod browser;
mod builtins;
mod changing;
mod disk;
mod full_disk;
mod granting;
mod guarding;
mod installing;
mod interrupting;
mod jobs;
mod jobs_status;
mod loading;
mod page;
mod picture;
mod policies;
mod pulling;
mod reading;
mod readme;
mod room;
mod saving;
mod scenarios;
mod service;
mod terminal;
mod texts;
