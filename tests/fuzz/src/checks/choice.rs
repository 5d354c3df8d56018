//! The choice among the members of an index.
//!
//! **Invariant**: a member that is no image is passed over. With one before all others, the same images are found as without. An input is that of the target `manifest`.

use larder::ingest::IngestProblem;
use serde_json::{Value, json};

use super::Verdict;
use super::archive::images;
use super::manifest::archive;

/// See the [module](self).
pub fn check(bytes: &[u8]) -> Verdict {
    let Some(more) = with_another_member(bytes) else { return Verdict::Refused };
    let digests = |bytes: &[u8]| {
        let found = images(&archive(bytes));
        found.map(|images| images.into_iter().map(|image| image.manifest).collect::<Vec<_>>())
    };
    match (digests(bytes), digests(&more)) {
        (Ok(before), Ok(after)) => {
            assert_eq!(before, after);
            Verdict::Taken
        }
        // The member takes a little of what is allowed.
        (Ok(_), Err(error)) => {
            assert!(matches!(error.problem(), IngestProblem::Limit { .. }), "{error}");
            Verdict::Refused
        }
        // What is wrong with the text, such as a key twice, may be right again in its new form.
        (Err(_), _) => Verdict::Refused,
    }
}

/// The documents with a member of an unknown kind in the index of the layout, before all others.
fn with_another_member(bytes: &[u8]) -> Option<Vec<u8>> {
    let (index, others) = bytes.split_at(bytes.iter().position(|&byte| byte == 0)?);
    // What stands for the size of another document is no JSON.
    const NUMBER: &str = "70700";
    let text = String::from_utf8(index.to_vec()).ok().filter(|text| !text.contains(NUMBER))?;
    let mut document: Value = serde_json::from_str(&text.replace('#', NUMBER)).ok()?;
    let member = json!({ "mediaType": "application/xml", "digest": "sha256:0", "size": 1 });
    document.get_mut("manifests")?.as_array_mut()?.insert(0, member);
    Some([document.to_string().replace(NUMBER, "#").as_bytes(), others].concat())
}
