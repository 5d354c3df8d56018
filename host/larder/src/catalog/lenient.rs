//! Values of an index. SQLite does not enforce the types of columns, and an invalid value must not hide the others.

use rusqlite::Row;
use rusqlite::types::ValueRef;

/// Returns a text, or `None` if the column holds anything else.
pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(str::to_owned),
        _ => None,
    })
}

/// Returns an integer, or `None` if the column holds anything else.
pub(super) fn integer(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<i64>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(integer) => Some(integer),
        _ => None,
    })
}

/// Returns a value of any type as a text for display and search, as far as it can be one.
pub(super) fn any_text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Integer(integer) => integer.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Null => String::new(),
    })
}
