//! The journal on a disk that fails: many short lives, each from a seed, against a model of what must hold.

mod exhaustive;
mod narrow;
mod world;

use world::World;

/// Lives that `cargo test` tries; `KAUDIT_TORTURE_SEEDS` says how many others.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var_os(name)?.to_str()?.parse().ok()
}

/// `KAUDIT_TORTURE_SEEDS=100000` tries so many seeds, `KAUDIT_TORTURE_SEED=17` that one alone.
#[test]
fn whatever_the_disk_does_the_contract_holds() {
    if let Some(seed) = number("KAUDIT_TORTURE_SEED") {
        let mut world = World::new(seed);
        world.is_talking = true;
        world.live();
        return;
    }
    let seeds = number("KAUDIT_TORTURE_SEEDS").unwrap_or(SEEDS);
    let next = std::sync::atomic::AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if let Err(panic) = std::panic::catch_unwind(|| World::new(seed).live()) {
                eprintln!("seed {seed} failed; KAUDIT_TORTURE_SEED={seed} repeats it");
                std::panic::resume_unwind(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
}

#[test]
fn a_life_is_the_same_for_the_same_seed() {
    let lives = [0, 0].map(|_| World::new(4711).live());
    assert_eq!(lives[0], lives[1]);
    assert_ne!(World::new(4712).live(), lives[0]);
}
