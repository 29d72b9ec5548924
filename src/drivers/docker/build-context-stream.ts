/**
 * A build's context as the Engine wants it: with the Dockerfile among its files, and a rule that keeps it from being copied
 * into the image, as the docker command does it for Dockerfiles from elsewhere.
 */
import { StrataError } from "../../core/errors.ts";
import { plainFileHeader, tarEnd, tarPadding, writeTarHeader } from "../../core/tar-writer.ts";
import { readTar } from "../../host/images/tar-reader.ts";

export const dockerfileName = ".strata.Dockerfile";
const ignoreFile = ".dockerignore";
const maxIgnoreBytes = 1024 ** 2;
const ignoreTooLarge = "the .dockerignore of the build's context is larger than 1 MiB, the limit";

export async function* contextWith(
  { dockerfile }: { dockerfile: string },
  context: AsyncIterable<Uint8Array>,
): AsyncGenerator<Buffer, void, void> {
  // A file of rules that was not there is not copied either.
  let rules = ignoreFile;
  for await (const entry of readTar(context)) {
    if (entry.path === ignoreFile && entry.type === "file") {
      if (entry.sizeBytes > maxIgnoreBytes) throw new StrataError("Invalid", ignoreTooLarge);
      rules = await textOf(entry.content);
      continue;
    }
    yield writeTarHeader(entry);
    for await (const chunk of entry.content) yield Buffer.from(chunk);
    yield tarPadding(entry.sizeBytes);
  }
  yield member(ignoreFile, `${rules}\n${dockerfileName}\n`);
  yield member(dockerfileName, dockerfile);
  yield tarEnd;
}

async function textOf(content: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of content) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString("utf8");
}

function member(path: string, text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([plainFileHeader(path, bytes.length), bytes, tarPadding(bytes.length)]);
}
