//! Power cuts: the image of a mounted file system is copied under load, and the copy is what the disk would be.
//!
//! Every other cut is taken while the process is stopped, so that the copy is of one moment. The others are copied
//! while everything goes on, as a disk goes on writing for a moment when its power fails.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::events::Name;
use crate::load::Load;
use crate::log::{LogFile, STREAM};
use crate::mount::{self, Mount};
use crate::oracle::Stored;
use crate::place::{PATIENCE, Place, Setting};
use crate::scale::{Random, count, report};

const DISK: u64 = 512 << 20;

/// Cuts of one image, which fills up.
const CUTS: u64 = 3;

#[test]
fn after_a_power_cut_what_was_acknowledged_before_is_there_once() {
    let cuts = count("KAUDIT_TORTURE_CUTS", 3, 150);
    let mut random = Random::of_test("power");
    let (mut done, mut events, mut cut_bytes) = (0, 0, 0_u64);
    while done < cuts {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        let logs = tempfile::tempdir().unwrap();
        let log = logs.path().join("audit.log");
        if mount::ext4(&image, DISK).is_none() {
            return;
        }
        let Some(disk) = Mount::image(&folder.path().join("disk"), &image) else {
            return;
        };
        let setting = Setting {
            journal: "256Mi",
            min_free: "8Mi",
            files: vec![("c".to_owned(), log.clone())],
            ..Setting::default()
        };
        let data = disk.at.join("data");
        let place = Place::with_data(folder, data, &setting);
        let process = place.start();
        let load = Load::start(place.cluster(), 4, 40, random.next());
        load.goes_to(Some(process.collector));
        let mut file = LogFile::new(&log);
        let mut lines = 0;
        for _ in 0..CUTS {
            load.wait_acked(1 + random.below(600), PATIENCE, || process.said.text());
            for _ in 0..random.below(400) {
                file.write(Name {
                    stream: STREAM,
                    number: lines,
                });
                lines += 1;
            }
            random.pause(Duration::from_millis(200));
            let is_stopped = done % 2 == 0;
            if is_stopped {
                process.signal(Signal::STOP);
            }
            let acked = load.names();
            let copy = place.path("cut.img");
            let status = Command::new("cp")
                .arg("--sparse=always")
                .arg(&image)
                .arg(&copy)
                .status();
            assert!(status.unwrap().success());
            if is_stopped {
                process.signal(Signal::CONT);
            }
            let mounted = Mount::image(&place.path("cut"), &copy).expect("the copy can be mounted");
            let after = Place::with_data(tempfile::tempdir().unwrap(), mounted.at.join("data"), &setting);
            let restarted = after.start();
            restarted.wait_until_read();
            cut_bytes += u64::from(!restarted.said.text().contains("cut_bytes=0"));
            restarted.stop();
            let stored = Stored::read(&after.data);
            events += u64::try_from(acked.len()).unwrap();
            stored.holds("acknowledged before the cut", acked);
            stored.holds(
                "log",
                (0..lines).map(|number| Name {
                    stream: STREAM,
                    number,
                }),
            );
            done += 1;
        }
        process.kill();
    }
    report("power cut (ext4 image)", "cuts", done);
    report("power cut (ext4 image)", "acknowledged events looked for", events);
    report("power cut (ext4 image)", "cuts that left a torn tail", cut_bytes);
    report("power cut (ext4 image)", "lost, doubled", "0, 0");
}
