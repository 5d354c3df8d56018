//! Policies in a program that does other things: a run is stopped by a drop, does not wait for other policies, decides on
//! the present, and needs nothing of the program's threads.

use std::future::Future;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use larder::failpoint::{POLICY_COMPILING, POLICY_ENDED, call_at};
use larder::policy::{
    ByteSize, Evaluation, GrantDocument, Limits, Policy, PolicyEngine, PolicyError, PolicyRun,
};
use larder::snapshot::{CacheSnapshot, CostGraph, DiskStatus, ImageRecord, MemoryCache, MemoryImage};
use larder::{Image, ImageDetail, MicrosandboxResult};
use larder_tests::{FIXTURE_NOW, Home, guest, hostile_guest, run};

/// Long enough for whatever is waited for: passing it is a failure.
const PATIENCE: Duration = Duration::from_secs(120);

fn engine() -> PolicyEngine {
    PolicyEngine::new().expect("an engine starts")
}

/// A run under these limits, at an instant that suits every home.
fn run_within(limits: Limits) -> PolicyRun {
    let now = FIXTURE_NOW.parse().expect("an instant");
    PolicyRun::new(now).with_grant(GrantDocument::default().with_limits(limits))
}

fn an_hour() -> Limits {
    Limits::default().with_time(Duration::from_secs(3600))
}

/// Tells its other end when the thread of a policy ends.
fn next_end() -> Receiver<()> {
    let (ends, ended) = channel();
    call_at(POLICY_ENDED, move || ends.send(()).expect("the test waits"));
    ended
}

/// Waits for this without blocking the runtime.
async fn wait_for(told: Receiver<()>) {
    let waited = tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE));
    waited.await.expect("it waits").expect("it happens");
}

/// Polls a future until it is told to stop, and drops it.
async fn drop_when<T>(future: impl Future<Output = T>, told: Receiver<()>) {
    tokio::select! {
        biased;
        _ = future => panic!("the guest never ends by itself"),
        () = wait_for(told) => {}
    }
}

/// A cache in memory that says when the guest asks for its disk, and when it is dropped.
struct Watched {
    cache: MemoryCache,
    asked: Sender<()>,
    dropped: Sender<()>,
}

impl CacheSnapshot for Watched {
    fn images(&mut self) -> MicrosandboxResult<Vec<ImageRecord>> {
        self.cache.images()
    }
    fn detail(&mut self, reference: &str) -> MicrosandboxResult<ImageDetail> {
        self.cache.detail(reference)
    }
    fn costs(&mut self) -> MicrosandboxResult<CostGraph> {
        self.cache.costs()
    }
    fn disk(&mut self) -> MicrosandboxResult<DiskStatus> {
        self.asked.send(()).expect("the test waits");
        self.cache.disk()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The test may have ended.
        let _ = self.dropped.send(());
    }
}

/// Asks for the disk, and then loops for ever.
const ASKS_AND_LOOPS: &str = r#"
    (import "larder:image/usage@0.2.0" "disk" (func $disk (param i32)))
    (func $on_evaluate (call $disk (i32.const 8192)) (loop $forever (br $forever)))"#;

/// A run whose future is dropped ends, although its guest would loop for an hour, and lets go of the state that it was
/// given; so does a suggestion.
#[test]
fn a_dropped_run_ends() {
    run(async {
        let policy = Policy::load(&engine(), guest(ASKS_AND_LOOPS)).await.expect("a policy");
        let policy_run = run_within(an_hour());
        for suggests in [false, true] {
            policy.description().await.expect("a description");
            let ((asked, is_running), (dropped, is_dropped), ended) = (channel(), channel(), next_end());
            let source = Box::new(Watched { cache: MemoryCache::new([]), asked, dropped });
            if suggests {
                drop_when(policy.suggest_grant(source, &policy_run), is_running).await;
            } else {
                drop_when(policy.evaluate(source, &policy_run), is_running).await;
            }
            wait_for(is_dropped).await;
            wait_for(ended).await;
        }
    });
}

/// The same with a home, and with a policy that never stops describing itself.
#[test]
fn what_else_is_dropped_ends() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let (engine, policy_run) = (engine(), run_within(an_hour()));
        let load = async |crime| Policy::load(&engine, hostile_guest(crime)).await.expect("a policy");
        let looping = load("endless-loop").await;
        looping.description().await.expect("a description");
        let describing = load("endless-describe").await;
        // Each is dropped once it was polled and so has its thread, and at whatever it has got to by then.
        for _ in 0..3 {
            let ended = next_end();
            drop_when(local.plan_policy(&looping, &policy_run), started()).await;
            wait_for(ended).await;
            let ended = next_end();
            drop_when(local.suggest_grant(&looping, &policy_run), started()).await;
            wait_for(ended).await;
            let ended = next_end();
            drop_when(local.plan_policy(&describing, &policy_run), started()).await;
            wait_for(ended).await;
            let ended = next_end();
            drop_when(describing.description(), started()).await;
            wait_for(ended).await;
        }
        assert_eq!(Image::list_local(&local).await.expect("the images").len(), 41, "the home is as usable");
    });
}

/// What is told already.
fn started() -> Receiver<()> {
    let (tell, told) = channel();
    tell.send(()).expect("the other end is there");
    told
}

/// Holds up the next compilation. It says when it has begun, and goes on once the sender of the second is dropped.
fn hold_compilation() -> (Receiver<()>, Sender<()>) {
    let ((begins, has_begun), (open, opens)) = (channel(), channel());
    call_at(POLICY_COMPILING, move || {
        begins.send(()).expect("the test waits");
        // It is opened by a drop.
        let _ = opens.recv_timeout(PATIENCE);
    });
    (has_begun, open)
}

/// Four policies run from beginning to end while a fifth is being compiled.
#[test]
fn no_run_waits_for_a_compilation() {
    let home = Home::fixture();
    run(async {
        let (local, engine) = (home.open().await, engine());
        let component = |number: u32| guest(&format!("(global $number i32 (i32.const {number}))"));
        let mut policies = Vec::new();
        for number in 0..4 {
            policies.push(Policy::load(&engine, component(number)).await.expect("a policy"));
        }
        let (has_begun, open) = hold_compilation();
        let fifth = tokio::spawn(async move { Policy::load(&engine, component(4)).await });
        wait_for(has_begun).await;
        let runs = policies.into_iter().map(|policy| {
            let local = local.clone();
            tokio::spawn(async move { local.plan_policy(&policy, &run_within(an_hour())).await })
        });
        for ended in runs.collect::<Vec<_>>() {
            let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it does not wait");
            assert_eq!(ended.expect("it runs").expect("a plan").plan.entries.len(), 41);
        }
        assert!(!fifth.is_finished());
        drop(open);
        fifth.await.expect("it loads").expect("a policy");
    });
}

/// A policy runs under the limits that it is compiled for while it is being compiled for others.
#[test]
fn a_policy_is_compiled_while_it_runs() {
    run(async {
        let policy = Policy::load(&engine(), guest("")).await.expect("a policy");
        policy.description().await.expect("a description");
        let (has_begun, open) = hold_compilation();
        let counting = {
            let policy = policy.clone();
            tokio::spawn(async move {
                let policy_run = run_within(an_hour().with_fuel(1_000_000));
                policy.evaluate(Box::new(MemoryCache::new([])), &policy_run).await
            })
        };
        wait_for(has_begun).await;
        let policy_run = run_within(an_hour());
        let plain = policy.evaluate(Box::new(MemoryCache::new([])), &policy_run);
        let plain = tokio::time::timeout(PATIENCE, plain).await.expect("it does not wait");
        assert_eq!(plain.expect("a plan").stats.fuel, None);
        assert!(!counting.is_finished());
        drop(open);
        assert!(counting.await.expect("it runs").expect("a plan").stats.fuel.is_some());
    });
}

/// A run that waits for its policy to be compiled decides on the images that there are when it begins.
#[test]
fn a_run_that_waits_sees_the_present() {
    let home = Home::fixture();
    run(async {
        let local = home.open().await;
        let policy = Policy::load(&engine(), guest("")).await.expect("a policy");
        let (has_begun, open) = hold_compilation();
        let planning = {
            let local = local.clone();
            // Fuel is compiled in.
            tokio::spawn(async move {
                local.plan_policy(&policy, &run_within(an_hour().with_fuel(1 << 40))).await
            })
        };
        wait_for(has_begun).await;
        let gone = "docker.io/acme/app00003:v0";
        Image::remove_local(&local, gone, false).await.expect("a removal");
        drop(open);
        let plan = planning.await.expect("it runs").expect("a plan").plan;
        assert_eq!(plan.entries.len(), 40);
        assert!(plan.entries.iter().all(|entry| entry.reference != gone));
    });
}

/// Recurses for ever, and at each level calls the host, which calls back for memory.
const DEEP_CALLS: &str = r#"
    (import "larder:image/usage@0.2.0" "get-usage" (func $usage (param i32 i32 i32 i32)))
    (func $on_evaluate
        (call $usage (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8192))
        (call $on_evaluate))"#;

/// A policy recurses to the largest limit there is, with the host's functions on top, in a program whose threads have
/// stacks of 128 KiB: it is stopped by its limit.
#[test]
fn a_guest_has_a_stack_of_its_own() {
    async fn recurse(component: Vec<u8>) -> String {
        let limits = an_hour().with_stack(ByteSize::mib(1)).with_memory(ByteSize::gib(1));
        let policy = Policy::load(&engine(), component).await.expect("a policy");
        let run = run_within(limits);
        let image = MemoryImage::new("docker.io/acme/app:1");
        let result: Result<Evaluation, PolicyError> =
            policy.evaluate(Box::new(MemoryCache::new([image])), &run).await;
        result.expect_err("it never ends by itself").to_string()
    }
    let small = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_stack_size(128 << 10).build().expect("a runtime")
    };
    for component in [hostile_guest("recursion"), guest(DEEP_CALLS)] {
        let error = small().block_on(async { tokio::spawn(recurse(component)).await.expect("it lives on") });
        assert!(error.contains("`stack` is 1MiB"), "{error}");
    }
    let thread = std::thread::Builder::new().stack_size(128 << 10);
    let error = thread.spawn(|| run(recurse(hostile_guest("recursion")))).expect("a thread");
    assert!(error.join().expect("it lives on").contains("`stack` is 1MiB"));
}
