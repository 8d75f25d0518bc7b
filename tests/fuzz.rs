//! The fuzz targets of `tests/fuzz/`, and a test of each: it plays all seeds, which are made from
//! the scripts, and everything that was found before (`tests/fuzz/found/`). So a finding stays
//! mended without a fuzzer; `make fuzz` looks for new ones.
//!
//! This file is the root of two crates: of this test, and of `tests/fuzz/Cargo.toml`, whose
//! programs are the same targets under libFuzzer. The parsers of settings and tokens are the
//! program's own and no part of the library, so they are read in from where they stand.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may end where it is wrong"
)]

#[path = "../src/flags.rs"]
mod flags;
#[path = "fuzz/mod.rs"]
pub mod fuzz;
#[path = "../src/refusal.rs"]
#[expect(dead_code, reason = "a file of the program; nothing is served here")]
mod refusal;
#[path = "../src/settings.rs"]
#[expect(dead_code, reason = "a file of the program; what `--help` shows is not asked for here")]
mod settings;
#[path = "../src/tokens.rs"]
#[expect(dead_code, reason = "a file of the program; whose it is on disk is not asked for here")]
mod tokens;

#[cfg(test)]
#[path = "scripts/language.rs"]
mod language;
#[cfg(test)]
#[path = "fuzz/seeds.rs"]
mod seeds;
#[cfg(test)]
#[path = "scripts/step.rs"]
#[expect(dead_code, reason = "the language of the scripts; not all of one is a seed")]
mod step;

#[cfg(test)]
mod replay {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use crate::fuzz::TARGETS;
    use crate::seeds;

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
    }

    /// The files of a folder, which need not be there.
    fn files(folder: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// What a target promises holds for its seeds, and for what was found before.
    fn replay(name: &str) {
        let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
        let seeds = seeds::all(&folder("scripts")).remove(name).unwrap_or_default();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in &seeds {
            println!("{}", seed.escape_ascii());
            target(seed);
        }
        for path in files(&folder("fuzz/found").join(name)) {
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
        }
    }

    macro_rules! targets {
        ($($name:ident)+) => {
            $(
                #[test]
                fn $name() {
                    replay(stringify!($name));
                }
            )+

            #[test]
            fn every_target_is_replayed_and_has_its_program() {
                let replayed = BTreeSet::from([$(stringify!($name)),+]);
                let known: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
                assert_eq!(replayed, known);
                let programs = files(&folder("fuzz/bins"));
                let programs = programs.iter().map(|it| it.file_stem().unwrap().to_str().unwrap());
                assert_eq!(programs.collect::<BTreeSet<_>>(), known);
            }
        };
    }

    targets! {
        commands
        connection
        cuts
        event_stream
        forwarded
        heads
        ids
        inflate
        negotiation
        offers
        oracle
        origins
        paths
        query
        settings
    }

    /// Writes the seeds where `POUSSE_FUZZ_SEEDS` says, a folder for each target: `make fuzz`.
    #[test]
    fn seeds_are_made_of_scripts() {
        let all = seeds::all(&folder("scripts"));
        let Some(to) = std::env::var_os("POUSSE_FUZZ_SEEDS") else { return };
        for (name, seeds) in all {
            let folder = Path::new(&to).join(name);
            fs::create_dir_all(&folder).unwrap();
            for (at, seed) in seeds.iter().enumerate() {
                fs::write(folder.join(format!("seed-{at}")), seed).unwrap();
            }
        }
    }
}
