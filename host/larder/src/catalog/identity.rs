//! The id of the home that an index belongs to, in `larder_home`.

use rusqlite::{Connection, OptionalExtension as _};

use super::lenient::any_text;
use crate::home::HomeId;

/// Returns the id, or `None` if Larder has never changed the home or the text is not an id.
pub(crate) fn home_id(connection: &Connection) -> rusqlite::Result<Option<HomeId>> {
    let mut statement = connection.prepare_cached("SELECT id FROM larder_home LIMIT 1")?;
    let text = statement.query_row([], |row| any_text(row, 0)).optional()?;
    Ok(text.and_then(|text| text.parse().ok()))
}
