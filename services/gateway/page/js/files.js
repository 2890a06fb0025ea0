// Files from what was dropped or chosen: folders are read to their last level.

/** Names that are no music in a folder of music. Files that were chosen one by one are always tried. */
const NOT_MUSIC = /^\.|\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|txt|nfo|log|cue|md|pdf|docx?|html?|css|js|json|xml|ini|db|sfv|md5|lrc|srt|zip|rar|7z|exe|dll|url|torrent|m3u8?|pls|asx|xspf|part|tmp)$/i;
const PLAYLIST = /\.m3u8?$/i;

/**
 * @typedef {{file: File, path: string}} Found
 * @typedef {{music: Found[], playlists: File[], leftOut: number}} Intake
 */

/** @param {DataTransfer} transfer @returns {Promise<Intake>} */
export async function fromDrop(transfer) {
  const entries = [];
  const plain = [];
  // Both lists are emptied as soon as the event is over.
  for (const item of transfer.items) {
    if (item.kind !== "file") continue;
    const entry = item.webkitGetAsEntry?.();
    if (entry) entries.push(entry);
    else if (item.getAsFile()) plain.push({ file: item.getAsFile(), path: item.getAsFile().name, deep: false });
  }
  const found = plain;
  for (const entry of entries) await walk(entry, "", false, found);
  return sorted(found);
}

/** @param {FileList} list @returns {Intake} */
export function fromInput(list) {
  return sorted(
    Array.from(list, (file) => ({ file, path: file.webkitRelativePath || file.name, deep: Boolean(file.webkitRelativePath) })),
  );
}

async function walk(entry, folder, deep, found) {
  const path = folder ? `${folder}/${entry.name}` : entry.name;
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    if (file) found.push({ file, path, deep });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    // A reader hands out some hundred entries at a time.
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return;
    for (const one of some) await walk(one, path, true, found);
  }
}

function sorted(found) {
  const intake = { music: [], playlists: [], leftOut: 0 };
  for (const { file, path, deep } of found) {
    if (PLAYLIST.test(file.name)) {
      if (deep) intake.leftOut += 1; // it names files of this folder
      else intake.playlists.push(file);
    } else if (deep && NOT_MUSIC.test(file.name)) intake.leftOut += 1;
    else intake.music.push({ file, path });
  }
  intake.music.sort((one, other) => one.path.localeCompare(other.path, undefined, { numeric: true }));
  return intake;
}
