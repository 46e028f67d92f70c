// Fetch the files of a bundle and compare each with the manifest, kdedge.json.

const FORMAT = 1; // The version of kdedge.json that this code reads.
const ORDER = ["int8", "portable", "fp32"];

/** A file of the bundle is missing, or is not the one that was exported. */
export class BundleError extends Error {}

export class Bundle {
  /** Use Bundle.open. `base` is the URL of the folder, with a slash at its end. */
  constructor(base, manifest) {
    this.base = base;
    this.manifest = manifest;
  }

  static async open(base) {
    const manifest = parse("kdedge.json", await download(base, "kdedge.json"));
    if (manifest.format > FORMAT) {
      throw new BundleError(`The bundle has format ${manifest.format}; this page reads ${FORMAT}.`);
    }
    if (manifest.clean !== undefined) {
      throw new BundleError("The bundle cleans texts, which this page cannot do.");
    }
    return new Bundle(base, manifest);
  }

  /** Browsers compute SHA-256 only for pages from https or localhost. */
  get canCheck() {
    return globalThis.crypto?.subtle !== undefined;
  }

  /** Name of the ONNX file that this folder holds: `kdedge export --web` copies one. */
  get precision() {
    return ORDER.find((name) => name in this.manifest.precisions);
  }

  /** Return the bytes of a file; throw BundleError if they are not what the manifest lists. */
  async bytes(name) {
    const entry = this.manifest.files[name];
    if (entry === undefined) {
      throw new BundleError(`The manifest does not list ${name}.`);
    }
    const content = await download(this.base, name);
    if (content.byteLength !== entry.bytes) {
      throw new BundleError(`${name} has ${content.byteLength} bytes instead of ${entry.bytes}.`);
    }
    if (this.canCheck && (await sha256(content)) !== entry.sha256) {
      throw new BundleError(`${name} is damaged: its SHA-256 is not the one in the manifest.`);
    }
    return content;
  }

  async json(name) {
    return parse(name, await this.bytes(name));
  }
}

async function download(base, name) {
  // With "no-cache" the browser uses a cached file only if it is current: exports never mix.
  const response = await fetch(new URL(name, base), { cache: "no-cache" });
  if (!response.ok) {
    throw new BundleError(`${name} cannot be loaded: the server answers with status ${response.status}.`);
  }
  return response.arrayBuffer();
}

function parse(name, content) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch {
    throw new BundleError(`${name} is damaged: it is not JSON.`);
  }
}

async function sha256(content) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
