//! The documents of an image: indexes, manifests, configs, and Docker's `manifest.json`.
//!
//! **Invariant**: as for archives, of which this is the inside.
//!
//! Documents name each other by their digests, which no mutation hits. So an input is documents with a NUL between
//! them, and in a document `@N`, `%N` and `#N` are the digest, its hex digits and the size of the document N, a digit:
//! one that comes later, as no digest can go into what it is the digest of. The first is the `index.json` of a layout
//! and the second the `manifest.json` of Docker, where they are not empty; every other is a blob.

use larder::reference::Digest;

use super::Verdict;
use super::archive::{check_image, images};

/// The most documents: each has a digit.
const DOCUMENTS: usize = 10;

/// See the [module](self).
pub fn check(bytes: &[u8]) -> Verdict {
    match images(&archive(bytes)) {
        Ok(images) => {
            images.iter().for_each(check_image);
            Verdict::Taken
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Verdict::Refused
        }
    }
}

/// The archive with the documents of an input.
pub(super) fn archive(bytes: &[u8]) -> Vec<u8> {
    let documents: Vec<&[u8]> = bytes.split(|&byte| byte == 0).take(DOCUMENTS).collect();
    let mut later: Vec<Option<(Vec<u8>, Digest)>> = vec![None; DOCUMENTS];
    for (index, document) in documents.iter().enumerate().rev() {
        let text = resolve(document, &later);
        let digest = Digest::of(&text);
        later[index] = Some((text, digest));
    }
    let mut archive = ::tar::Builder::new(Vec::new());
    for (index, (text, digest)) in later.iter().flatten().enumerate() {
        let name = match index {
            0 | 1 if text.is_empty() => continue,
            0 => "index.json".to_owned(),
            1 => "manifest.json".to_owned(),
            _ => format!("blobs/{}", digest.as_str().replace(':', "/")),
        };
        let mut header = ::tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_slice()).expect("written to memory");
    }
    archive.into_inner().expect("written to memory")
}

/// A document with the digests and sizes of others in it.
fn resolve(document: &[u8], later: &[Option<(Vec<u8>, Digest)>]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = document;
    while let [byte, behind @ ..] = rest {
        let other =
            behind.first().and_then(|&next| later.get(usize::from(next.checked_sub(b'0')?))?.as_ref());
        let value = match (byte, other) {
            (b'@', Some((_, digest))) => digest.to_string(),
            (b'%', Some((_, digest))) => digest.to_string().replace("sha256:", ""),
            (b'#', Some((content, _))) => content.len().to_string(),
            _ => {
                text.push(*byte);
                rest = behind;
                continue;
            }
        };
        text.extend_from_slice(value.as_bytes());
        rest = &behind[1..];
    }
    text
}
