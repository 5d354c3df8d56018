//! Chromium as the judge of a page.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The widths of the screens that a page is looked at on, in pixels.
pub(crate) const WIDTHS: [u32; 2] = [360, 1280];

/// The colours that a reader prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Dark,
    Light,
}

/// What the browser made of a page.
#[derive(Debug)]
pub(crate) struct Seen {
    /// One for each of [`WIDTHS`].
    pub(crate) screens: Vec<Value>,
    /// What it said on its console.
    pub(crate) console: Vec<String>,
}

/// Looks at the page in a frame of each width. The script is of the page around the frames, which may look into them.
const LOOK: &str = r#"<!doctype html><meta charset="utf-8"><body>FRAMES<script>
const rgb = text => { const m = text.match(/[\d.]+/g); return m && (m.length < 4 || +m[3] > 0) ? m.slice(0, 3).map(Number) : null; };
const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
  return .2126 * r + .7152 * g + .0722 * b; };
const contrast = (a, b) => { const [x, y] = [light(a), light(b)]; return (Math.max(x, y) + .05) / (Math.min(x, y) + .05); };
const back = (w, e) => { for (; e; e = e.parentElement) { const c = rgb(w.getComputedStyle(e).backgroundColor); if (c) return c; } return [255, 255, 255]; };
const look = f => {
  const w = f.contentWindow, d = f.contentDocument, all = [...d.querySelectorAll('*')];
  let faint = { ratio: 21, text: '' };
  const walk = d.createTreeWalker(d.body, NodeFilter.SHOW_TEXT);
  for (let n; n = walk.nextNode();) {
    const e = n.parentElement;
    if (!n.data.trim() || ['title', 'STYLE'].includes(e.tagName)) continue;
    const style = w.getComputedStyle(e), svg = e.tagName === 'text', under = svg && e.parentElement.querySelector('rect');
    const on = under ? rgb(w.getComputedStyle(under).fill) : back(w, e);
    const ratio = contrast(rgb(svg ? style.fill : style.color), on);
    if (ratio < faint.ratio) faint = { ratio, text: n.data };
  }
  const shown = [...d.querySelectorAll('svg[role=img]')].filter(e => w.getComputedStyle(e).display !== 'none');
  return {
    width: w.innerWidth,
    too_wide: d.documentElement.scrollWidth - d.documentElement.clientWidth,
    tags: [...new Set(all.map(e => e.tagName.toLowerCase()))].sort(),
    handlers: all.filter(e => e.getAttributeNames().some(a => a.startsWith('on') || a === 'style' || a === 'href' || a === 'src')).length,
    loaded: w.performance.getEntriesByType('resource').length,
    dark: w.matchMedia('(prefers-color-scheme: dark)').matches,
    back: w.getComputedStyle(d.body).backgroundColor,
    faint,
    drawings: shown.length,
    nameless: shown.filter(e => !e.querySelector('title')?.textContent).length
      + [...d.querySelectorAll('table')].filter(e => !e.querySelector('caption')?.textContent).length,
    twice: all.filter(e => e.id && d.querySelectorAll('[id="' + e.id + '"]').length > 1).length,
    small: [...d.querySelectorAll('svg text')].filter(e => e.getClientRects().length && e.getBoundingClientRect().height < 10).length,
    text: d.body.innerText,
  };
};
const frames = [...document.querySelectorAll('iframe')];
Promise.all(frames.map(f => new Promise(done => f.addEventListener('load', done)))).then(() => {
  document.body.textContent = 'SEEN' + encodeURIComponent(JSON.stringify(frames.map(look))) + 'END';
});
</script>"#;

/// Looks at a page, which is a file in a directory of its own.
pub(crate) fn look_at(page: &Path, scheme: Scheme) -> Seen {
    let name = page.file_name().and_then(|name| name.to_str()).expect("a name");
    let frames: String = WIDTHS
        .iter()
        .map(|width| {
            format!(r#"<iframe src="{name}" style="width:{width}px;height:900px;border:0"></iframe>"#)
        })
        .collect();
    let around = page.with_file_name("look.html");
    fs::write(&around, LOOK.replace("FRAMES", &frames)).expect("the page around it");
    let mut chromium = browser(page, scheme);
    chromium.args(["--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom"]);
    let output = chromium.arg(format!("file://{}", around.display())).output().expect("chromium runs");
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let seen = dom.split_once("SEEN").and_then(|(_, rest)| rest.split_once("END"));
    let (seen, _) = seen.unwrap_or_else(|| panic!("chromium saw nothing: {dom}\n{log}"));
    let screens = serde_json::from_str(&decoded(seen)).expect("what was seen");
    let console = log.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    Seen { screens, console }
}

/// Makes a picture of the beginning of a page.
pub(crate) fn picture_of(page: &Path, to: &Path, width: u32, height: u32) {
    let mut chromium = browser(page, Scheme::Light);
    chromium.arg(format!("--window-size={width},{height}")).arg("--hide-scrollbars");
    chromium.arg(format!("--screenshot={}", to.display())).arg(format!("file://{}", page.display()));
    let output = chromium.output().expect("chromium runs");
    assert!(to.exists(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The browser, which can reach nothing.
fn browser(page: &Path, scheme: Scheme) -> Command {
    let mut chromium = Command::new("chromium");
    let profile = page.with_file_name("profile");
    let scheme = match scheme {
        Scheme::Dark => 0,
        Scheme::Light => 1,
    };
    chromium
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args(["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"])
        .args(["--enable-logging=stderr", "--window-size=1400,1000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"));
    chromium
}

/// Undoes `encodeURIComponent`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
                u8::from_str_radix(std::str::from_utf8(&digits).expect("digits"), 16).expect("a byte")
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).expect("UTF-8")
}
