//! The program, as whoever types its commands meets it: standard output, standard error and exit status of each
//! command are one snapshot, for people and for programs, with success and with failure.

#[macro_use]
mod harness;
mod authoring;
mod builtins;
mod changing;
mod full_disk;
mod granting;
mod guarding;
mod installing;
mod interrupting;
mod jobs;
mod jobs_status;
mod loading;
mod policies;
mod pulling;
mod reading;
mod readme;
mod saving;
mod scenarios;
mod service;
mod terminal;
