//! A removal that is stopped, or that nobody waits for any longer, ends between two batches: what went is in the report and
//! on record, and so is that it was stopped.

use std::sync::mpsc::channel;

use larder::failpoint::call_at;
use larder::plan::{PlanReport, RunRecord, RunState};
use larder::{LocalBackend, MicrosandboxError};
use larder_tests::{FIXTURE_NOW, Home, images_on_one_base, populate, run};
use tokio::sync::oneshot;

/// So many images take several batches to remove.
const IMAGES: u32 = 300;

/// A home of many images that nothing uses.
fn home() -> Home {
    let home = Home::made();
    populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &images_on_one_base(IMAGES));
    home
}

/// Makes the end of the first batch wait for the second sender's word, and say when it is there.
fn hold_first_batch() -> (oneshot::Receiver<()>, std::sync::mpsc::Sender<()>) {
    let ((arrive, arrived), (go_on, goes_on)) = (oneshot::channel(), channel());
    call_at("removal.released", move || {
        arrive.send(()).expect("the test waits");
        goes_on.recv().expect("the test goes on");
    });
    (arrived, go_on)
}

/// Runs a future on one thread: what it does after a word and before it waits again is done when the word is heard.
fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

async fn last_run(local: &LocalBackend) -> RunRecord {
    local.history(1).await.expect("a history").pop().expect("a run")
}

fn images(home: &Home) -> u64 {
    home.count("SELECT count(*) FROM image_ref").try_into().expect("a number")
}

/// A removal that is stopped reports what went, what is left and what that freed, puts it on record, and the next one does
/// the rest.
#[test]
fn a_stopped_removal_is_complete_on_record() {
    let home = home();
    let (arrived, go_on) = hold_first_batch();
    on_one_thread(async {
        let local = home.open().await;
        let plan = local.plan_prune().await.expect("a plan");
        let stop = async {
            arrived.await.expect("the first batch");
            go_on.send(()).expect("the batch waits");
        };
        let error = local.apply_until(&plan, None, stop).await.expect_err("it was stopped");
        let MicrosandboxError::Incomplete { report, source } = error else { panic!("{error}") };
        assert!(matches!(*source, MicrosandboxError::Stopped), "{source}");
        let PlanReport { removed, left, spared, report, .. } = *report;
        assert!(!removed.is_empty() && spared.is_empty() && report.bytes_reclaimed > Some(0));
        assert_eq!(removed.len() + left.len(), IMAGES as usize);
        assert_eq!(left.len() as u64, images(&home));

        let run = last_run(&local).await;
        assert_eq!((run.state, run.problem.as_deref()), (RunState::Ended, Some("interrupted")));
        assert_eq!((run.removed, &run.report), (removed.len() as u64, &report));

        let rest = local.plan_prune().await.expect("a plan");
        assert_eq!(local.apply(&rest).await.expect("the rest").removed.len(), left.len());
    });
}

/// A stop before the first image leaves every image, and is on record.
#[test]
fn a_removal_that_is_stopped_at_once() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let plan = local.plan_prune().await.expect("a plan");
        let error = local.apply_until(&plan, None, async {}).await.expect_err("it was stopped");
        let MicrosandboxError::Incomplete { report, .. } = error else { panic!("{error}") };
        assert_eq!((report.removed.len(), report.left.len()), (0, 38));
        assert_eq!(images(&home), 41);
        let run = last_run(&local).await;
        assert_eq!((run.state, run.problem.as_deref()), (RunState::Ended, Some("interrupted")));
    });
}

/// A removal whose future is dropped ends after the batch that it is in, and its record is completed. Until then it is under
/// way, for those who look from elsewhere as well.
#[test]
fn a_removal_that_nobody_waits_for() {
    let home = home();
    let (arrived, go_on) = hold_first_batch();
    run(async {
        let (local, elsewhere) = (home.open().await, home.open().await);
        let plan = local.plan_prune().await.expect("a plan");
        tokio::select! {
            _ = local.apply(&plan) => panic!("the batch is held"),
            arrived = arrived => arrived.expect("the first batch"),
        }
        let under_way = last_run(&elsewhere).await;
        assert_eq!(
            (under_way.state, under_way.problem.as_deref()),
            (RunState::UnderWay, Some("it is under way"))
        );
        assert_eq!(under_way.removed, u64::from(IMAGES) - images(&home));
        assert!(under_way.removed > 0 && under_way.report.bytes_reclaimed > Some(0));
        go_on.send(()).expect("the batch waits");
        let ended = loop {
            let run = last_run(&elsewhere).await;
            if run.state != RunState::UnderWay {
                break run;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!((ended.state, ended.problem.as_deref()), (RunState::Ended, Some("interrupted")));
        assert_eq!(ended.removed, u64::from(IMAGES) - images(&home));
        assert!(images(&home) > 0, "it went on to the end");
    });
}
