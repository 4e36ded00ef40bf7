//! How many events each value of a column has, and how many bytes they take.

use std::collections::HashMap;

use kaudit_query::{Column, Value};

use super::batch::{Batch, text_column};
use super::group::{Coding, select, with_event};
use super::plan::Plan;
use super::work::{Unit, run};
use super::{Scan, ScanStats};
use crate::rebuild::Rows;
use crate::schema::Col;
use crate::{Hit, Snapshot, StoreError, Volume, VolumeOf};

/// Values that are told apart; what comes after that many is counted together.
const MAX_VALUES: usize = 100_000;

/// The volumes of values.
#[derive(Debug, Default)]
struct Volumes {
    known: HashMap<String, Volume>,
    /// Of those that were too many.
    other: Volume,
}

impl Volumes {
    fn add(&mut self, value: &str, volume: Volume) {
        if let Some(known) = self.known.get_mut(value) {
            known.add(volume);
        } else if self.known.len() < MAX_VALUES {
            self.known.insert(value.to_owned(), volume);
        } else {
            self.other.add(volume);
        }
    }

    fn add_value(&mut self, value: &Value<'_>, bytes: u64) {
        let volume = Volume {
            events: 1,
            event_bytes: bytes,
        };
        match value {
            Value::Absent | Value::Json(_) => self.add("", volume),
            Value::Text(text) => self.add(&String::from_utf8_lossy(text), volume),
            Value::Number(number) | Value::Time(number) | Value::Duration(number) => {
                self.add(&number.to_string(), volume);
            }
            Value::Bool(is) => self.add(&is.to_string(), volume),
            Value::Texts(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| String::from_utf8_lossy(text)).collect();
                self.add(&texts.join(","), volume);
            }
        }
    }
}

impl Volume {
    pub(super) const fn add(&mut self, other: Self) {
        self.events += other.events;
        self.event_bytes += other.event_bytes;
    }
}

impl Snapshot {
    /// The volume by the values of a column, for example `policyRule`, `user.username` or
    /// `objectRef.resource`, the largest first.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::fold`].
    pub fn volume_by(&self, scan: &Scan, column: &Column) -> Result<(Vec<VolumeOf>, ScanStats), StoreError> {
        let (all, stats) = match text_column(column) {
            Some(source) => self.volumes_of_texts(scan, column, source)?,
            None => {
                let columns = [column.clone(), Column::EventBytes];
                self.fold(scan, &columns, Volumes::default, |volumes, hit: &Hit<'_>| {
                    volumes.add_value(&hit.value(0), bytes_of(&hit.value(1)));
                })?
            }
        };
        let mut sum: HashMap<Option<String>, Volume> = HashMap::new();
        for Volumes { known, other } in all {
            let known = known.into_iter().map(|(value, volume)| (Some(value), volume));
            for (value, volume) in known.chain([(None, other)]) {
                sum.entry(value).or_default().add(volume);
            }
        }
        let mut volumes: Vec<VolumeOf> = sum
            .into_iter()
            .filter(|(_, volume)| volume.events > 0)
            .map(|(value, volume)| VolumeOf { value, volume })
            .collect();
        volumes.sort_by(|a, b| {
            let bytes = b.volume.event_bytes.cmp(&a.volume.event_bytes);
            bytes.then_with(|| a.value.cmp(&b.value))
        });
        Ok((volumes, stats))
    }

    /// Of a column of texts: each text is looked at once where texts are coded.
    fn volumes_of_texts(
        &self,
        scan: &Scan,
        column: &Column,
        source: Col,
    ) -> Result<(Vec<Volumes>, ScanStats), StoreError> {
        let plan = Plan::new(&scan.filter, scan.from, scan.to);
        let visit = |volumes: &mut Volumes, unit: &Unit, stats: &mut ScanStats| {
            let rows = select(unit, &plan, scan)?;
            stats.count(unit, rows.count());
            unit.read_all(&rows.raw, |batch| {
                let read = Rows::of(batch)?;
                for row in 0..batch.num_rows() {
                    let add = |volumes: &mut Volumes, value: &Value<'_>, bytes: &Value<'_>| {
                        volumes.add_value(value, bytes_of(bytes));
                    };
                    let shown = with_event(&read, row, |event| {
                        add(volumes, &event.value(column), &event.value(&Column::EventBytes));
                    });
                    if shown.is_none() {
                        // What is no event has its bytes.
                        let batch = Batch::of(batch);
                        add(volumes, &Value::Absent, &batch.value(&Column::EventBytes, row));
                    }
                }
                Ok(())
            })?;
            unit.read(&rows.plain, &[source, Col::Bytes], Coding::Coded, |batch| {
                let batch = Batch::of(batch);
                match batch.text_volumes(column) {
                    Some(found) => found.into_iter().for_each(|(text, volume)| {
                        volumes.add(text.unwrap_or_default(), volume);
                    }),
                    None => (0..batch.rows()).for_each(|row| {
                        let bytes = bytes_of(&batch.value(&Column::EventBytes, row));
                        volumes.add_value(&batch.value(column, row), bytes);
                    }),
                }
                Ok(())
            })
        };
        run(
            self,
            scan,
            &plan,
            |min, _| min,
            |_, _| true,
            Volumes::default,
            visit,
        )
    }
}

fn bytes_of(value: &Value<'_>) -> u64 {
    match value {
        Value::Number(bytes) => u64::try_from(*bytes).unwrap_or_default(),
        _ => 0,
    }
}
