//! Sizes as people read them: binary units with one decimal, as in a grant.

use larder::policy::ByteSize;

use super::NOTHING;

/// Such as `5.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    format!("{:#}", ByteSize::bytes(bytes))
}

/// A size that the index may lack.
pub(crate) fn known(bytes: Option<i64>) -> String {
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).map_or(NOTHING.to_owned(), size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes have one decimal from a KiB on, and what is not known has none.
    #[test]
    fn sizes() {
        assert_eq!((size(512), size(5_630_157)), ("512 B".to_owned(), "5.4 MiB".to_owned()));
        assert_eq!((known(None), known(Some(-1))), ("-".to_owned(), "-".to_owned()));
    }
}
