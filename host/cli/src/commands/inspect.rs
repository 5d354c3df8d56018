use larder::{Image, ImageDetail};

use super::Failures;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, age, plain, short_digest, size};

/// Show the config and the layers of images
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder inspect python:3.12
  larder inspect python:3.12 --format json")]
pub(crate) struct Inspect {
    /// The images
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
}

impl Inspect {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let mut failures = Failures::new(context);
        let mut details = Vec::new();
        for reference in &self.references {
            details.extend(failures.catch(Image::inspect_local(&local, reference).await));
        }
        if context.console.is_json() {
            context.console.json(&details)?;
        } else {
            let texts: Vec<String> = details.iter().map(|detail| describe(detail, context)).collect();
            context.console.data(&texts.join("\n"))?;
        }
        Ok(failures.status())
    }
}

fn describe(detail: &ImageDetail, context: &Context) -> String {
    let ImageDetail { config, handle, layers } = detail;
    let now = context.now();
    let or_nothing = |text: Option<&str>| text.unwrap_or(NOTHING).to_owned();
    let mut lines = vec![
        ("Manifest", or_nothing(handle.manifest_digest())),
        ("Platform", format!("{}/{}", or_nothing(handle.os()), or_nothing(handle.architecture()))),
        ("Size", size::known(handle.size_bytes())),
        ("Created", age::known(handle.created_at(), now)),
        ("Used", age::known(handle.last_used_at(), now)),
    ];
    if let Some(config) = config {
        lines.push(("Config", config.digest.clone()));
        let words = |words: &[String]| serde_json::Value::from(words).to_string();
        lines.extend(config.entrypoint.as_deref().map(|entrypoint| ("Entrypoint", words(entrypoint))));
        lines.extend(config.cmd.as_deref().map(|cmd| ("Command", words(cmd))));
        lines.extend(config.working_dir.clone().map(|directory| ("Directory", directory)));
        lines.extend(config.user.clone().map(|user| ("User", user)));
        lines.extend(config.stop_signal.clone().map(|signal| ("Stop signal", signal)));
        lines.extend(config.env.iter().map(|variable| ("Variable", variable.clone())));
        let labels = config.labels.as_ref().and_then(serde_json::Value::as_object).into_iter().flatten();
        lines.extend(labels.map(|(key, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            ("Label", format!("{key}={value}"))
        }));
    }
    let mut text = format!("{}\n", plain(handle.reference()));
    for (name, value) in lines {
        text.push_str(&format!("  {name:<12}{}\n", plain(&value)));
    }
    let columns = [
        ("LAYER", Align::Right),
        ("DIFF ID", Align::Left),
        ("BLOB", Align::Left),
        ("COMPRESSED", Align::Right),
        ("EROFS", Align::Right),
    ];
    let mut table = Table::new(columns, context.console.width());
    for layer in layers {
        table.row([
            layer.position.to_string(),
            short_digest(&layer.diff_id),
            short_digest(&layer.blob_digest),
            size::known(layer.compressed_size_bytes),
            size::known(layer.erofs_size_bytes),
        ]);
    }
    text + &table.render()
}
