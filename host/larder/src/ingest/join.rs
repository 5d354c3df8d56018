//! Joining the layers of an image: its fsmeta image and its VMDK descriptor.
//!
//! # Layers that are made again
//! The fsmeta image of every image with a layer has the positions of the layer's data, and another writer may have put them
//! elsewhere. So before a lost or damaged layer gets its name again, the joined files of the other images that have it are deleted:
//! a missing file is seen, a wrong one is not. They are made again afterwards, one image at a time, and last those of the image that
//! is loaded: as long as its own are missing, a later load looks for others. Joined files that a program holds stay if they are
//! right for the new layer; otherwise the layer is not replaced.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_erofs::format::{BLOCK_SIZE, DeviceTag};
use larder_erofs::merge::{CoveredLinks, MergeError, Merger};
use larder_erofs::reader::{Image, ReadAt};
use larder_erofs::vmdk::{Extent, descriptor};
use larder_erofs::writer::{Encoding, Options};
use rusqlite::Connection;

use super::account::check_limit;
use super::error::IngestProblem;
use super::layer::uuid_of;
use super::limits::LimitKey;
use super::progress::ProgressEvent;
use super::source::{NamedImage, SourceImage};
use super::work::{Dependent, Dependents, DoneLayer, Layers, Work};
use crate::artifacts::lease::{Claim, Claims};
use crate::artifacts::unlink::unlink_now;
use crate::artifacts::{Entry, Room};
use crate::catalog::publish::{NewImage, NewLayer, manifests_with_layer};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::reference::Digest;

/// A layer that is not in place yet.
struct NewFile<'a> {
    diff_id: &'a Digest,
    file: &'a File,
}

impl Work<'_> {
    /// Joins the layers of an image, which are in place. Returns what the index gets of it.
    pub(crate) fn image(&self, named: &NamedImage, layers: &Layers) -> MicrosandboxResult<NewImage> {
        let image = &named.image;
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let is_new = |diff_id: &Digest| layers.done.get(diff_id).is_some_and(|done| done.is_new);
        let anew = diff_ids.iter().any(is_new);
        if !anew && self.is_parted(&image.manifest)? {
            self.rejoin(self.parted(&diff_ids)?, std::slice::from_ref(named))?;
        }
        self.join(&image.manifest, &diff_ids, anew)?;
        self.publication.sync()?;
        self.tell(ProgressEvent::ImageReady {
            manifest_digest: image.manifest.as_str(),
            layers: diff_ids.len(),
        });
        Ok(new_image(named, |diff_id| layers.done.get(diff_id).map_or(0, |DoneLayer { length, .. }| *length)))
    }

    /// Makes the joined files of images that were parted, one image at a time, except those of `later`.
    pub(crate) fn rejoin(&self, dependents: Dependents, later: &[NamedImage]) -> MicrosandboxResult<()> {
        let mut seen: HashSet<Digest> = later.iter().map(|named| named.image.manifest.clone()).collect();
        for Dependent { manifest, layers } in dependents {
            if !seen.insert(manifest.clone()) {
                continue;
            }
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(self.fail(IngestProblem::Cancelled).into());
            }
            let mut all_there = true;
            for layer in &layers {
                all_there &= self.sound(&Entry::named(Room::Layers, layer))?.is_some();
            }
            // Without all of its layers an image is damaged anyway: `verify` names what is missing.
            if all_there {
                self.join(&manifest, &layers, false)?;
            }
            self.publication.release(&Entry::joined(&manifest));
        }
        self.publication.sync()
    }

    /// Deletes the joined files of every image in the index that has a layer, before the layer gets a new file. Returns the images.
    ///
    /// # Errors
    /// Fails before the layer is replaced if a program holds joined files that do not fit the new file.
    pub(crate) fn part_dependents(&self, diff_id: &Digest, file: &File) -> MicrosandboxResult<Dependents> {
        let dependents = self.with_layer(diff_id)?;
        let new = NewFile { diff_id, file };
        for dependent in &dependents {
            for entry in Entry::joined(&dependent.manifest) {
                let path = self.publication.cache().path_of(&entry);
                let mut claims = Claims::default();
                let claim = claims.claim(self.publication.rooms(), &entry);
                match claim.map_err(MicrosandboxError::io("hold", &path))? {
                    Claim::Held => {
                        unlink_now(self.publication.rooms(), &entry)
                            .map_err(MicrosandboxError::io("delete", &path))?;
                    }
                    Claim::Busy if entry.room == Room::Fsmeta => self.check_held(dependent, &entry, &new)?,
                    // It has paths and lengths alone, which are those of the layers.
                    Claim::Busy => {}
                }
            }
        }
        Ok(dependents)
    }

    /// Refuses to replace a layer under an image whose fsmeta image a program holds, unless it stays the same.
    fn check_held(&self, dependent: &Dependent, entry: &Entry, new: &NewFile<'_>) -> MicrosandboxResult<()> {
        let held = IngestProblem::Held { image: dependent.manifest.clone(), layer: new.diff_id.clone() };
        let file = self.publication.begin(entry)?;
        let sink = file.as_file().try_clone().map_err(|error| self.writing(error))?;
        // Where another layer is missing as well, nobody can say what it would be.
        if self.merge(sink, dependent, Some(new)).is_err() {
            return Err(self.fail(held).into());
        }
        let is_same = self.publication.has_content(entry, file.as_file());
        if is_same.map_err(|error| self.writing(error))? { Ok(()) } else { Err(self.fail(held).into()) }
    }

    fn with_layer(&self, diff_id: &Digest) -> MicrosandboxResult<Dependents> {
        let with_layer = |connection: &Connection| manifests_with_layer(connection, diff_id);
        let found = self.publication.ask("find the images of a layer", with_layer)?;
        Ok(found.into_iter().map(|(manifest, layers)| Dependent { manifest, layers }).collect())
    }

    /// Returns whether the index has an image whose fsmeta image is missing.
    fn is_parted(&self, manifest: &Digest) -> MicrosandboxResult<bool> {
        let fsmeta = Entry::named(Room::Fsmeta, manifest);
        if self.sound(&fsmeta)?.is_some() {
            return Ok(false);
        }
        self.publication.is_owned(&fsmeta)
    }

    /// Returns the images with one of these layers whose fsmeta image is missing.
    fn parted(&self, diff_ids: &[Digest]) -> MicrosandboxResult<Dependents> {
        let mut parted: Dependents = Vec::new();
        let mut seen = HashSet::new();
        for diff_id in diff_ids {
            for dependent in self.with_layer(diff_id)? {
                let is_new = seen.insert(dependent.manifest.clone());
                if is_new && self.sound(&Entry::named(Room::Fsmeta, &dependent.manifest))?.is_none() {
                    parted.push(dependent);
                }
            }
        }
        Ok(parted)
    }

    /// Makes the fsmeta image and the VMDK descriptor of a manifest. `anew` forces it, if a layer is not the one that
    /// the existing files were made of: another writer may have put its data at other positions.
    fn join(&self, manifest: &Digest, layers: &[Digest], anew: bool) -> MicrosandboxResult<()> {
        let root = self.publication.cache().root();
        // Descriptors hold absolute paths.
        let root = root.canonicalize().map_err(MicrosandboxError::io("find", root))?;
        let parts: Vec<Entry> = layers.iter().map(|layer| Entry::named(Room::Layers, layer)).collect();
        let [fsmeta, vmdk] = Entry::joined(manifest);
        let _turn = self.publication.hold(&fsmeta, || {})?;
        if anew || !self.fits(&fsmeta, &parts)? {
            let file = self.publication.begin(&fsmeta)?;
            let sink = file.as_file().try_clone().map_err(|error| self.writing(error))?;
            let image = Dependent { manifest: manifest.clone(), layers: layers.to_vec() };
            let covered = self.merge(sink, &image, None).map_err(|problem| self.fail(problem))?;
            if covered.count > 0 {
                let paths: Vec<String> = covered.paths.iter().map(ToString::to_string).collect();
                let (manifest_digest, count) = (manifest.as_str(), covered.count);
                self.tell(ProgressEvent::LinksCovered { manifest_digest, count, paths: &paths });
            }
            self.publication.publish(&fsmeta, file).map_err(|error| self.writing(error))?;
        } else {
            self.publication.reuse(&fsmeta).map_err(|error| self.writing(error))?;
        }
        let _turn = self.publication.hold(&vmdk, || {})?;
        let mut lengths = Vec::new();
        for entry in std::iter::once(&fsmeta).chain(&parts) {
            let path = root.join(entry.path());
            let length = self.publication.open(entry).and_then(|file| Ok(file.metadata()?.len()));
            lengths.push((length.map_err(MicrosandboxError::io("read", &path))?, path));
        }
        let disk: Vec<Extent<'_>> =
            lengths.iter().map(|(length, path)| Extent { path, length: *length }).collect();
        let text = descriptor(&disk).map_err(|error| self.fail(IngestProblem::Join(error.to_string())))?;
        if self.publication.read_small(&vmdk).is_ok_and(|before| before == text.as_bytes()) {
            return self.publication.reuse(&vmdk).map_err(|error| self.writing(error));
        }
        self.publication.write_small(&vmdk, text.as_bytes()).map_err(|error| self.writing(error))
    }

    /// Returns whether there is an fsmeta image that refers to layers of the same lengths as these.
    fn fits(&self, fsmeta: &Entry, layers: &[Entry]) -> MicrosandboxResult<bool> {
        if self.sound(fsmeta)?.is_none() {
            return Ok(false);
        }
        let path = self.publication.cache().path_of(fsmeta);
        let file = self.publication.open(fsmeta).map_err(MicrosandboxError::io("open", &path))?;
        let Ok(image) = Image::open(file) else { return Ok(false) };
        let length =
            |layer: &Entry| self.publication.open(layer).and_then(|file| Ok(file.metadata()?.len())).ok();
        Ok(image.devices().len() == layers.len()
            && image
                .devices()
                .iter()
                .zip(layers)
                .all(|(device, layer)| length(layer) == Some(u64::from(device.blocks) * BLOCK_SIZE as u64)))
    }

    /// Writes the fsmeta image of an image. `new` is a layer that is not in place yet.
    fn merge(
        &self,
        sink: File,
        image: &Dependent,
        new: Option<&NewFile<'_>>,
    ) -> Result<CoveredLinks, IngestProblem> {
        let limits = self.limits;
        let mut merger = Merger::new();
        for layer in &image.layers {
            let join = |why: String| IngestProblem::Join(format!("layer `{layer}`: {why}"));
            let file = match new.filter(|new| new.diff_id == layer) {
                Some(new) => new.file.try_clone(),
                None => self.publication.open(&Entry::named(Room::Layers, layer)),
            };
            let file = file.map_err(|error| join(error.to_string()))?;
            let opened = Image::open(UntilCancelled { file, cancelled: self.cancelled });
            let opened = opened.map_err(|error| join(error.to_string()))?;
            let tag = DeviceTag::parse(layer.hex()).map_err(|error| join(error.to_string()))?;
            merger.add(&opened, tag).map_err(|error| match self.cancelled.load(Ordering::Relaxed) {
                true => IngestProblem::Cancelled,
                false => join(chain(&error)),
            })?;
            check_limit(merger.inodes(), limits, LimitKey::ImageEntries)?;
            check_limit(merger.metadata_bytes(), limits, LimitKey::ImageMetadataBytes)?;
        }
        let options = Options { encoding: Encoding::Simple, uuid: uuid_of(&image.manifest) };
        let covered = merger.covered_links().clone();
        match merger.finish(sink, options) {
            Ok(_) => Ok(covered),
            Err(larder_erofs::writer::WriteError::Write(error)) => Err(IngestProblem::writing(error)),
            Err(error) => Err(IngestProblem::Join(error.to_string())),
        }
    }
}

/// A layer that can be read until the work is cancelled.
struct UntilCancelled<'a> {
    file: File,
    cancelled: &'a AtomicBool,
}

impl ReadAt for UntilCancelled<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(IngestProblem::Cancelled.into_io());
        }
        self.file.read_exact_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

/// Returns an error and its sources in one text.
fn chain(error: &MergeError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn new_image(named: &NamedImage, length: impl Fn(&Digest) -> u64) -> NewImage {
    let SourceImage { manifest, manifest_media_type, config_digest, config, platform, layers, .. } =
        &named.image;
    let runtime = &config.config;
    let known = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    NewImage {
        references: named.references.clone(),
        manifest: manifest.clone(),
        media_type: manifest_media_type.clone(),
        config_digest: config_digest.clone(),
        os: known(platform.os()),
        architecture: known(platform.architecture()),
        variant: platform.variant().map(str::to_owned),
        env: runtime.env.clone(),
        cmd: runtime.cmd.clone(),
        entrypoint: runtime.entrypoint.clone(),
        working_dir: runtime.working_dir.clone(),
        user: runtime.user.clone(),
        labels: runtime.labels.clone(),
        stop_signal: runtime.stop_signal.clone(),
        layers: layers
            .iter()
            .map(|layer| NewLayer {
                diff_id: layer.diff_id.clone(),
                blob_digest: layer.digest.clone(),
                media_type: layer.media_type.clone(),
                compressed_bytes: layer.size,
                erofs_bytes: length(&layer.diff_id),
            })
            .collect(),
    }
}
