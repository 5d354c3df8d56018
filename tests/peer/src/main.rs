//! `larder-peer HOME CALL`: one call of microsandbox's SDK on a home, as a program, since it and Larder cannot be in one.
//!
//! ```text
//! list [TIMES]            get REFERENCE [TIMES]      inspect REFERENCE [TIMES]
//! remove REFERENCE…       prune                      load ARCHIVE [TAG]…
//! save docker|oci ARCHIVE REFERENCE…
//! ```
//!
//! It prints one JSON object: `answer`, in the form that Larder's records have; `opened_ns`, how long the home took to be
//! opened; `calls_ns`, how long each call took, which are several where a call is made several times or for several
//! references; `cpu_ms` and `peak_memory_kib` of the whole process. What the SDK refuses goes to stderr, and the exit
//! status is 1.

mod records;
#[path = "../../src/usage.rs"]
mod usage;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use microsandbox::{Image, ImageArchiveFormat, LocalBackend, MicrosandboxResult};
use serde_json::{Value, json};
use usage::Usage;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<Value, Box<dyn Error>> {
    let [home, call, arguments @ ..] = arguments else { return Err("a home and a call are needed".into()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let clock = Instant::now();
        // Settings of the home, and not of whoever runs this.
        let config = Path::new(home).join("config.json");
        let local = LocalBackend::builder().config_path(config).home(*home).build().await?;
        let opened = clock.elapsed();
        let mut calls = Calls { local, times: Vec::new() };
        let answer = calls.make(call, arguments).await?;
        let usage = Usage::of_this_process();
        Ok(json!({
            "answer": answer,
            "opened_ns": nanoseconds(opened),
            "calls_ns": calls.times.iter().copied().map(nanoseconds).collect::<Vec<_>>(),
            "cpu_ms": u64::try_from(usage.cpu.as_millis())?,
            "peak_memory_kib": usage.peak_memory_kib,
        }))
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// An open home, and how long each call on it took.
struct Calls {
    local: LocalBackend,
    times: Vec<Duration>,
}

impl Calls {
    async fn make(&mut self, call: &str, arguments: &[&str]) -> Result<Value, Box<dyn Error>> {
        Ok(match (call, arguments) {
            ("list", times) => {
                let images = self.repeat(times, async |local| Image::list_local(local).await).await?;
                images.iter().map(records::handle).collect()
            }
            ("get", [reference, times @ ..]) => {
                let get = async |local: &LocalBackend| Image::get_local(local, reference).await;
                records::handle(&self.repeat(times, get).await?)
            }
            ("inspect", [reference, times @ ..]) => {
                let inspect = async |local: &LocalBackend| Image::inspect_local(local, reference).await;
                records::detail(&self.repeat(times, inspect).await?)
            }
            ("remove", references) => {
                for reference in references {
                    self.once(async |local| Image::remove_local(local, reference, false).await).await?;
                }
                Value::Null
            }
            ("prune", []) => {
                records::prune_report(&self.once(async |local| Image::prune_local(local).await).await?)
            }
            ("load", [archive, tags @ ..]) => {
                let tags: Vec<String> = tags.iter().map(|&tag| tag.to_owned()).collect();
                let load = async |local: &LocalBackend| {
                    Image::load_local(local, archive.as_ref(), tags.clone()).await
                };
                self.once(load).await?.iter().map(records::handle).collect()
            }
            ("save", [format, archive, references @ ..]) => {
                let format = match *format {
                    "docker" => ImageArchiveFormat::Docker,
                    "oci" => ImageArchiveFormat::Oci,
                    other => return Err(format!("no format `{other}`: `docker` or `oci`").into()),
                };
                let references: Vec<String> =
                    references.iter().map(|&reference| reference.to_owned()).collect();
                let save = async |local: &LocalBackend| {
                    Image::save_local(local, &references, archive.as_ref(), format).await
                };
                self.once(save).await?;
                Value::Null
            }
            (call, arguments) => return Err(format!("no call `{call}` with {arguments:?}").into()),
        })
    }

    async fn once<T>(
        &mut self,
        call: impl AsyncFnOnce(&LocalBackend) -> MicrosandboxResult<T>,
    ) -> Result<T, Box<dyn Error>> {
        let clock = Instant::now();
        let answer = call(&self.local).await;
        self.times.push(clock.elapsed());
        Ok(answer?)
    }

    /// Makes a call that changes nothing as often as told, or once. The answer is the last one.
    async fn repeat<T>(
        &mut self,
        times: &[&str],
        call: impl AsyncFn(&LocalBackend) -> MicrosandboxResult<T>,
    ) -> Result<T, Box<dyn Error>> {
        let times: u32 = times.first().map_or(Ok(1), |times| times.parse())?;
        for _ in 1..times {
            drop(self.once(&call).await?);
        }
        self.once(&call).await
    }
}
