use std::time::Duration;

use chrono::{DateTime, Utc};
use larder::policy::{Explanation, UseRecord, Verdict};

use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, age, plain, short_digest, size};

/// Show why an image is in the cache, or why it was removed
///
/// Shows what needs the image now, how it was used, and what past runs decided about it, with their reasons.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  larder explain docker.io/acme/app:v1")]
pub(crate) struct Explain {
    /// The image, in the cache or gone
    #[arg(value_name = "REF")]
    reference: String,
}

impl Explain {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let explanation = context.open().await?.explain(&self.reference).await?;
        if context.console.is_json() {
            context.console.json(&explanation)?;
        } else {
            context.console.data(&describe(&explanation, context))?;
        }
        Ok(Status::Done)
    }
}

/// Returns how an image was used, in a clause, or `None` if only arrivals are on record.
fn used(uses: &UseRecord, now: DateTime<Utc>) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(at) = uses.last_booted_at {
        let by = uses.last_booted_by.as_ref().map_or(String::new(), |name| format!(" by sandbox {name}"));
        let boots = match uses.boots {
            1 => "1 boot on record".to_owned(),
            boots => {
                format!("{boots} boots on record, the first {}", age::known(uses.first_booted_at, now))
            }
        };
        parts.push(format!("last booted {}{by} ({boots})", age::age(at, now)));
    }
    if let Some(at) = uses.last_pulled_at {
        let cost = uses.last_pull_ms.zip(uses.last_pull_bytes);
        let cost = cost.map_or(String::new(), |(ms, bytes)| {
            format!(
                " (a pull took {:.1} s and {})",
                Duration::from_millis(ms).as_secs_f64(),
                size::size(bytes)
            )
        });
        parts.push(format!("pulled {}{cost}", age::age(at, now)));
    }
    let others = [("loaded", uses.last_loaded_at), ("saved", uses.last_saved_at)];
    parts.extend(others.into_iter().filter_map(|(word, at)| Some(format!("{word} {}", age::age(at?, now)))));
    (!parts.is_empty()).then(|| format!("was {}", parts.join(", ")))
}

fn describe(explanation: &Explanation, context: &Context) -> String {
    let now = context.now();
    let mut text = format!("{}\n", plain(&explanation.reference));
    let mut line = |line: String| text.push_str(&format!("  {}\n", plain(&line)));
    match &explanation.image {
        Some(image) => {
            line(format!(
                "is in the cache: created {}, used {}, manifest {}",
                age::known(image.created_at(), now),
                age::known(image.last_used_at(), now),
                image.manifest_digest().map_or(NOTHING.to_owned(), short_digest),
            ));
            match (explanation.users.is_empty(), explanation.pinned) {
                (false, _) => line(format!("is used by {}", explanation.users)),
                (true, true) => {}
                (true, false) if explanation.kept_by_guard.is_none() => {
                    line("nothing uses it: a prune would remove it".to_owned());
                }
                (true, false) => {}
            }
            if let Some(why) = &explanation.kept_by_guard {
                line(format!("is kept by the guard of this home: {why}"));
            }
        }
        None => line("is not in the cache".to_owned()),
    }
    if explanation.pinned {
        line("is pinned".to_owned());
    }
    if let Some(uses) = explanation.uses.as_ref().and_then(|uses| used(uses, now)) {
        line(uses);
    }
    if explanation.decisions.is_empty() {
        line("no run on record has decided about it".to_owned());
        return text;
    }
    let columns = [
        ("RUN", Align::Right),
        ("WHEN", Align::Left),
        ("DECISION", Align::Left),
        ("POLICY", Align::Left),
        ("FREED", Align::Right),
        ("REASON", Align::Left),
    ];
    let mut table = Table::new(columns, context.console.width());
    for decision in &explanation.decisions {
        let policy = decision.policy.as_ref().map(|policy| format!("{} {}", policy.name, policy.version));
        let verdict = match decision.verdict {
            Verdict::Kept => "kept",
            Verdict::Removed => "removed",
            Verdict::Spared => "spared",
        };
        table.row([
            decision.run.to_string(),
            age::age(decision.started_at, now),
            verdict.to_owned(),
            policy.unwrap_or(NOTHING.to_owned()),
            if decision.verdict == Verdict::Removed {
                size::size(decision.bytes)
            } else {
                NOTHING.to_owned()
            },
            decision.reason.clone(),
        ]);
    }
    text + &table.render()
}
