//! The cache by repository, as areas.

use larder::plan::{Overview, RepositoryUsage};
use maud::{Markup, html};

use super::svg::{Area, CANVASES, Canvas, at, fitting};
use super::table;
use crate::render::size::size;
use crate::render::{count, plain};

/// The number of repositories that have an area of their own.
const CELLS: usize = 58;
/// The number of repositories in the table.
const ROWS: usize = 200;

/// An area of the map.
struct Cell {
    label: String,
    detail: String,
    class: &'static str,
    bytes: u64,
}

/// Shows the cache by repository, as a drawing and as a table.
pub(super) fn treemap(overview: &Overview) -> Markup {
    let repositories = &overview.repositories;
    if repositories.is_empty() {
        return html! { p { "The cache has no images." } };
    }
    let cells = cells(overview);
    html! {
        p {
            (size(overview.image_bytes)) " of " (count(repositories.iter().map(|one| one.images).sum(), "image")) " in "
            (repositories.len()) @if repositories.len() == 1 { " repository" } @else { " repositories" } ", "
            (size(overview.shared_bytes)) " of it shared between repositories. An area is what a repository has on its own."
        }
        figure {
            @for canvas in CANVASES { (drawing(&cells, canvas)) }
            figcaption {
                @for (class, what) in [("used", "something uses an image"), ("unused", "nothing uses any"), ("shared", "shared, and others")] {
                    svg class="k" viewBox="0 0 10 10" aria-hidden="true" { rect class=(class) width="10" height="10" {} }
                    (what) " \u{2003}"
                }
            }
        }
        (rows(repositories))
    }
}

/// Returns the areas, the largest first.
fn cells(overview: &Overview) -> Vec<Cell> {
    let with_own = overview.repositories.iter().filter(|one| one.own_bytes > 0);
    let mut cells: Vec<Cell> = with_own
        .clone()
        .take(CELLS)
        .map(|one| Cell {
            label: plain(&one.repository),
            detail: format!("{}, {} in use", count(one.images, "image"), one.in_use),
            class: if one.in_use > 0 { "used" } else { "unused" },
            bytes: one.own_bytes,
        })
        .collect();
    let others = with_own.clone().skip(CELLS).count();
    let more = [
        (others, format!("{others} others"), with_own.skip(CELLS).map(|one| one.own_bytes).sum::<u64>()),
        (1, "shared".to_owned(), overview.shared_bytes),
    ];
    cells.extend(more.into_iter().filter(|(number, _, bytes)| *number > 0 && *bytes > 0).map(
        |(_, label, bytes)| Cell {
            label,
            detail: "of several repositories".to_owned(),
            class: "shared",
            bytes,
        },
    ));
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.bytes));
    cells
}

fn drawing(cells: &[Cell], canvas: Canvas) -> Markup {
    let Canvas { class, width, height } = canvas;
    let weights: Vec<f64> = cells.iter().map(|cell| cell.bytes as f64).collect();
    let areas = squarified(&weights, Area { x: 0.0, y: 0.0, width, height });
    let name = format!("map-{class}");
    html! {
        svg class=(class) viewBox=(format!("0 0 {width} {height}")) role="img" aria-labelledby=(name) {
            title id=(name) { "The cache by repository; the table below has the same numbers" }
            @for (cell, area) in cells.iter().zip(areas) {
                g {
                    title { (cell.label) ": " (size(cell.bytes)) ", " (cell.detail) }
                    rect class={ "cell " (cell.class) } x=(at(area.x)) y=(at(area.y)) width=(at(area.width)) height=(at(area.height)) {}
                    @let room = area.width - 12.0;
                    @let label = fitting(short(&cell.label), room);
                    @if area.height > 20.0 && !label.is_empty() {
                        text x=(at(area.x + 6.0)) y=(at(area.y + 16.0)) { (label) }
                        @let bytes = size(cell.bytes);
                        @if area.height > 38.0 && fitting(&bytes, room) == bytes {
                            text x=(at(area.x + 6.0)) y=(at(area.y + 32.0)) { (bytes) }
                        }
                    }
                }
            }
        }
    }
}

/// Leaves out of a repository's name what most have in common.
fn short(repository: &str) -> &str {
    repository.strip_prefix("docker.io/").unwrap_or(repository)
}

fn rows(repositories: &[RepositoryUsage]) -> Markup {
    let left = repositories.len().saturating_sub(ROWS);
    let caption = if left > 0 {
        format!("Repositories, those with most of their own first; {left} more are left out")
    } else {
        "Repositories, those with most of their own first".to_owned()
    };
    let columns = [
        ("Repository", ""),
        ("Images", "number"),
        ("In use", "number"),
        ("Own", "number"),
        ("Shared", "number"),
    ];
    table(
        &caption,
        &columns,
        html! {
            @for one in &repositories[..repositories.len().min(ROWS)] {
                tr {
                    th scope="row" { (plain(&one.repository)) }
                    td class="number" { (one.images) }
                    td class="number" { (one.in_use) }
                    td class="number" { (size(one.own_bytes)) }
                    td class="number" { (size(one.shared_bytes)) }
                }
            }
        },
    )
}

/// Divides an area in proportion to weights, the largest first, into rectangles that are as square as can be (Bruls,
/// Huizing and van Wijk, "Squarified treemaps").
fn squarified(weights: &[f64], mut area: Area) -> Vec<Area> {
    let mut areas = Vec::with_capacity(weights.len());
    let mut total: f64 = weights.iter().sum();
    let mut rest = weights;
    while !rest.is_empty() && total > 0.0 {
        let scale = area.width * area.height / total;
        let side = area.width.min(area.height);
        let mut row = 1;
        let mut sum = rest[0] * scale;
        let mut worst = flatness(&rest[..1], sum, side, scale);
        while let Some(next) = rest.get(row) {
            let with = flatness(&rest[..=row], sum + next * scale, side, scale);
            if with > worst {
                break;
            }
            (worst, sum, row) = (with, sum + next * scale, row + 1);
        }
        let thickness = if side > 0.0 { sum / side } else { 0.0 };
        let mut along = 0.0;
        for weight in &rest[..row] {
            let length = if thickness > 0.0 { weight * scale / thickness } else { 0.0 };
            areas.push(if area.width >= area.height {
                Area { x: area.x, y: area.y + along, width: thickness, height: length }
            } else {
                Area { x: area.x + along, y: area.y, width: length, height: thickness }
            });
            along += length;
        }
        if area.width >= area.height {
            (area.x, area.width) = (area.x + thickness, (area.width - thickness).max(0.0));
        } else {
            (area.y, area.height) = (area.y + thickness, (area.height - thickness).max(0.0));
        }
        total -= rest[..row].iter().sum::<f64>();
        rest = &rest[row..];
    }
    areas
}

/// Returns the ratio of the sides of the flattest rectangle of a row: 1 for a square.
fn flatness(row: &[f64], sum: f64, side: f64, scale: f64) -> f64 {
    let largest = row.first().map_or(0.0, |weight| weight * scale);
    let smallest = row.last().map_or(0.0, |weight| weight * scale);
    (side * side * largest / (sum * sum)).max(sum * sum / (side * side * smallest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Areas are in proportion to their weights, lie within the whole, and are not flat.
    #[test]
    fn areas_are_in_proportion() {
        let whole = Area { x: 0.0, y: 0.0, width: 600.0, height: 400.0 };
        for weights in
            [vec![6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0], vec![1.0], (1..=60).rev().map(f64::from).collect()]
        {
            let total: f64 = weights.iter().sum();
            let areas = squarified(&weights, whole);
            assert_eq!(areas.len(), weights.len());
            for (area, weight) in areas.iter().zip(&weights) {
                let expected = weight / total * 240_000.0;
                assert!((area.width * area.height - expected).abs() < 0.01, "{area:?}");
                assert!(area.x >= 0.0 && area.x + area.width <= 600.01, "{area:?}");
                assert!(area.y >= 0.0 && area.y + area.height <= 400.01, "{area:?}");
                assert!((area.width / area.height).max(area.height / area.width) < 5.0, "{area:?}");
            }
        }
        assert!(squarified(&[], whole).is_empty());
    }
}
