//! The limits on what crosses between a guest and the host, and the end of a run that exceeds one.

use super::Session;
use super::answers::{Answer, CallError, label};
use crate::policy::error::PolicyError;
use crate::policy::limits::LimitKey;
use crate::records::ImageDetail;

/// The bytes that a record takes in a guest's memory besides its texts: more than any record of a contract has.
pub(super) const RECORD: usize = 192;

impl Session {
    /// Checks that a text that the policy hands over is short enough.
    pub(super) fn check_text(&self, text: &str) -> Answer<()> {
        if text.len() as u64 > self.limits().string.as_bytes() {
            Err(self.past(LimitKey::String))
        } else {
            Ok(())
        }
    }

    /// Checks that the handles of these images can cross.
    pub(super) fn handles(&mut self, images: Vec<usize>) -> Answer<Vec<usize>> {
        let bytes = |&index: &usize| {
            let handle = &self.images.get(index).record.handle;
            let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
            // The repository and the tag are at most the reference once more.
            RECORD + handle.reference.len() * 2 + text(&handle.manifest_digest)
        };
        self.check_list(images.len(), images.iter().map(bytes).sum())?;
        self.show(&images);
        Ok(images)
    }

    /// Checks that a detail can cross. What comes from the image's own config may have any size.
    pub(super) fn check_detail(&self, detail: &ImageDetail) -> Answer<()> {
        let mut longest_list = detail.layers.len();
        let mut texts = vec![detail.handle.reference()];
        let labels = detail.config.iter().filter_map(|config| config.labels.as_ref()?.as_object());
        let labels: Vec<_> = labels.flatten().map(|(key, value)| (key, label(value))).collect();
        if let Some(config) = &detail.config {
            let lists = [Some(&config.env), config.cmd.as_ref(), config.entrypoint.as_ref()];
            for list in lists.into_iter().flatten() {
                longest_list = longest_list.max(list.len());
                texts.extend(list.iter().map(String::as_str));
            }
            longest_list = longest_list.max(labels.len());
            texts.extend(labels.iter().flat_map(|(key, value)| [key.as_str(), value]));
            let single = [&config.working_dir, &config.user, &config.stop_signal];
            texts.extend(single.into_iter().flatten().map(String::as_str));
        }
        texts.iter().try_for_each(|text| self.check_text(text))?;
        // Digests and media types are short; two records' worth for each layer covers them.
        let records = (1 + detail.layers.len()) * 2 * RECORD;
        self.check_list(longest_list, records + texts.iter().map(|text| text.len() + 8).sum::<usize>())
    }

    /// Checks that a list that crosses is short enough.
    pub(super) fn check_list(&self, elements: usize, bytes: usize) -> Answer<()> {
        if elements as u64 > u64::from(self.limits().list) {
            return Err(self.past(LimitKey::List));
        }
        if bytes as u64 > self.limits().transfer.as_bytes() {
            return Err(self.past(LimitKey::Transfer));
        }
        Ok(())
    }

    /// Returns the end of a run that exceeded a limit.
    pub(super) fn past(&self, key: LimitKey) -> CallError {
        CallError::Run(PolicyError::limit(key, self.limits()))
    }
}
