/**
 * The last step of every build, made by the same builder as the steps before: what an image lacks to start on every type of
 * guest is installed from its own distribution, and its application becomes a service. Pure.
 */
import { type DebianMirrors, sourcesOf } from "../debian-build.ts";
import {
  basePackages,
  configureHook,
  essentialHook,
  excludedPaths,
  kernelPackage,
} from "../debian-recipe.ts";
import {
  addedPath,
  applicationPath,
  type ImageApplication,
  serviceName,
  serviceUnit,
} from "./application.ts";

/** Where the step's own files are; they are in no image. */
export const workDirectory = ".strata-build";

/** Increase it when the same Dockerfile would give another tree. */
export const completionVersion = 3;

export interface Completion {
  application: ImageApplication | undefined;
  /** Where this host's apt gets Debian from; undefined leaves it to the image's own sources. */
  mirrors: DebianMirrors | undefined;
  /** Lines of an apt.conf. */
  proxies: readonly string[];
}

/** The files of the step's context. */
export function completionFiles({ application, mirrors, proxies }: Completion): Map<string, string> {
  return new Map([
    ["complete", script(kernelPackage())],
    ["essential", essentialHook],
    ["configure", configureHook],
    ["apt.conf", proxies.map((line) => `${line};\n`).join("")],
    ["packages", `${[...basePackages].sort().join("\n")}\n`],
    ...(mirrors ? [["sources", `${sourcesOf(mirrors, "@SUITE@").join("\n")}\n`] as const] : []),
    ...(application
      ? [
          ["application", `${JSON.stringify(application, undefined, 2)}\n`] as const,
          ["service", serviceUnit(application)] as const,
        ]
      : []),
  ]);
}

/** Completes an image, by the builder's name for it. Nothing of its own environment takes part. */
export function completionDockerfile(image: string): string {
  const variables = "PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive";
  const command = ["/usr/bin/env", "-i", ...variables.split(" "), "/bin/sh", `/${workDirectory}/complete`];
  return `FROM ${image}\nUSER 0:0\nCOPY . /${workDirectory}/\nRUN ${JSON.stringify(command)}\n`;
}

const dpkgOptions = [
  // The tree is written to disk for good once, when the image is complete.
  "--force-unsafe-io",
  ...excludedPaths.map((path) => `--path-exclude=${path}`),
  "--path-include=/usr/share/doc/*/copyright",
]
  .map((option) => `-o DPkg::Options::=${option}`)
  .join(" ");

const script = (kernelName: string) => `set -eu
umask 022
export SOURCE_DATE_EPOCH=1700000000
here=/${workDirectory}
say() { echo "strata: $*"; }

init=
for path in /sbin/init /usr/sbin/init /usr/lib/systemd/systemd /lib/systemd/systemd /init; do
  if [ -e "$path" ] || [ -L "$path" ]; then init=$path; fi
done
kernel=
for path in /boot/vmlinuz-*; do
  version=\${path#/boot/vmlinuz-}
  if [ -d "/lib/modules/$version" ] || [ -d "/usr/lib/modules/$version" ]; then kernel=$path; fi
done

# Directories in /run that the image made: an init mounts a new /run over them
if [ -d /run ]; then
  find /run -mindepth 1 -type d ! -path '* *' | sort | while read -r path; do
    case $path in
      /run/lock|/run/lock/*|/run/mount*|/run/systemd*|/run/udev*|/run/user*|/run/log*|/run/secrets*|/run/sendsigs*) ;;
      *) stat -c 'd %n %a %u %g -' "$path" ;;
    esac
  done > "$here/run"
fi

distribution() { ( . /etc/os-release; eval "echo \\"\\\${$1:-}\\"" ); }
id=$(distribution ID 2>/dev/null || true)

wanted=
[ -n "$init" ] || wanted=$(cat "$here/packages")
if [ -z "$kernel" ]; then
  case $id in
    ubuntu) wanted="$wanted initramfs-tools lz4 linux-image-virtual" ;;
    *) wanted="$wanted initramfs-tools lz4 ${kernelName}" ;;
  esac
fi
missing=
for name in $wanted; do
  [ "$(dpkg-query -W -f '\${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || missing="$missing $name"
done

if [ -n "$missing" ]; then
  case $id in
    debian|ubuntu) ;;
    *) say "refused: $(distribution PRETTY_NAME 2>/dev/null || echo "an image without /etc/os-release")"; exit 65 ;;
  esac
  [ -n "$init" ] || say "the image has no init"
  [ -n "$kernel" ] || say "the image has no kernel"
  say "installing from $(distribution PRETTY_NAME):$missing"
  apt="-q -o Dpkg::Use-Pty=0 -o APT::Sandbox::User=root"
  if [ "$id" = debian ] && [ -e "$here/sources" ]; then
    sed -i "s/@SUITE@/$(distribution VERSION_CODENAME)/" "$here/sources"
    mv "$here/sources" "$here/sources.list"
    apt="$apt -o Dir::Etc::sourcelist=$here/sources.list -o Dir::Etc::sourceparts=-"
  fi
  export APT_CONFIG="$here/apt.conf"
  policy=/usr/sbin/policy-rc.d
  [ -e "$policy" ] && policy= || { printf '#!/bin/sh\\nexit 101\\n' > "$policy"; chmod 755 "$policy"; }
  [ -n "$kernel" ] || /bin/sh "$here/essential" /
  apt-get $apt update
  apt-get $apt install --yes --no-install-recommends ${dpkgOptions} $missing
  apt-get $apt clean
  [ -z "$policy" ] || rm -f "$policy"
  [ -n "$init" ] || /bin/sh "$here/configure" /
fi

mkdir -p ${applicationPath.slice(0, applicationPath.lastIndexOf("/"))}
rm -f ${addedPath} ${applicationPath}
for name in $missing; do echo "$name"; done | sort -u > "$here/added"
[ ! -s "$here/added" ] || cp "$here/added" ${addedPath}
unit=/etc/systemd/system/${serviceName}
wants=/etc/systemd/system/multi-user.target.wants
rm -f "$unit" "$wants/${serviceName}" /usr/lib/tmpfiles.d/strata-application.conf
if [ -e "$here/application" ]; then
  cp "$here/application" ${applicationPath}
  if [ -e /usr/lib/systemd/systemd ] || [ -e /lib/systemd/systemd ]; then
    mkdir -p "$wants" /usr/lib/tmpfiles.d
    cp "$here/service" "$unit"
    ln -s ../${serviceName} "$wants/${serviceName}"
    [ ! -s "$here/run" ] || cp "$here/run" /usr/lib/tmpfiles.d/strata-application.conf
    say "the application is started by ${serviceName}"
  else
    say "the image's init is not systemd: nothing starts the application in it"
  fi
fi
rm -rf "$here"
`;
