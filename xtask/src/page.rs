//! `cargo xtask page`: makes the picture of the README, of a page of a host whose disk fills up, and tests pages.

use anyhow::Result;

use crate::guests::{self, BUILTIN, EMBED};
use crate::shell::{command, install_packages, linted, root, succeeds, target};
use crate::steps::{Announcement, Steps};

/// The variable that names the file of the picture. Without it, the test makes none.
const PICTURE: &str = "LARDER_PAGE_PICTURE";
/// The variable that names the directory of the policies that were built for tests.
const POLICIES: &str = "LARDER_POLICIES";

/// Makes the picture, and stops if the page is not as it should be.
pub(crate) fn run_page() -> Result<()> {
    let mut steps = Steps::begin("page");
    guests::build_kit(&mut steps, guests::Along::Nothing)?;
    let policies = guests::build_builtin(&mut steps, &BUILTIN)?;
    let announcement = Announcement {
        name: "page",
        does: "looks at pages in Chromium, and makes docs/page.png",
        usually: "2 min where the tests are built",
    };
    steps.run(announcement, |step| {
        if !succeeds(command("chromium").arg("--version")) {
            install_packages(step, &["chromium"])?;
        }
        let mut test = linted(&["test"]);
        test.args(["--workspace", "--test", "program", "--", "page::", "picture::"]);
        test.env(EMBED, &policies).env(POLICIES, target().join("policies"));
        step.run(test.env(PICTURE, root().join("docs/page.png")))
    })?;
    steps.finish();
    Ok(())
}
