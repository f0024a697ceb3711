#!/usr/bin/env bash
# Installs the programs that the tests with real programs need, through the system's package manager.
#
#   tools/system_packages.sh             Exim, PHP, PHPMailer, swaks, msmtp, Postfix, SoftHSM and swtpm
#   tools/system_packages.sh PART...     these parts of the table below only
#   tools/system_packages.sh --missing   installs nothing, names the parts of the first line that are not there
#
# Promises:
# - what is there already, from wherever, stays as it is; when all is there nothing is run;
# - no package is removed: a part that would push one out (as Exim does to Postfix on Debian) is left out;
# - Postfix, which Debian does not let be beside Exim, is not installed: it is unpacked below .cache of this clone;
# - no service is started: a policy-rc.d that forbids it is in place while Debian installs;
# - what is left out is said by name, with the reason, and is no failure: the exit code is 0.
# Runs in several clones take turns. Waits have limits: 600 s for a turn, 300 s for dpkg, 30 s for a stalled download.
#
# Used on Debian 12. The Rocky 9 column follows the package lists of Rocky and EPEL; nobody has run it yet.
set -euo pipefail
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
PATH=$PATH:/usr/sbin:/sbin

readonly PYTHON=${PYTHON:-/usr/bin/python3}
readonly STEP=${BASH_SOURCE[0]%/*}/step.sh
readonly UNPACKED=${BASH_SOURCE[0]%/*}/../.cache/system-packages
readonly TURN=/run/sesguard-system-packages.lock
readonly POLICY=/usr/sbin/policy-rc.d
readonly POLICY_MARK='# made by tools/system_packages.sh of sesguard; delete it when that is not running'
readonly APT=(apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=1 -o Acquire::http::Timeout=30
  -o Dpkg::Options::=--force-confold --quiet --yes --no-install-recommends)
readonly DNF=(dnf --quiet --assumeyes --setopt=install_weak_deps=False)

# Part, its name, Debian packages, Rocky packages ("-": none).
table() {
  local python
  python=$(basename "$(readlink -f "$PYTHON")")
  cat <<TABLE
exim       Exim       exim4-daemon-light        exim
php        PHP        php-cli                   php-cli
phpmailer  PHPMailer  libphp-phpmailer          php-phpmailer6
swaks      swaks      swaks,libnet-ssleay-perl  swaks
msmtp      msmtp      msmtp                     msmtp
postfix    Postfix    postfix                   -
softhsm    SoftHSM    softhsm2,opensc-pkcs11    softhsm,opensc
swtpm      swtpm      swtpm,tpm2-tools          swtpm,tpm2-tools
venv       venv       $python-venv              $python
TABLE
}

column() { # NUMBER PART
  table | awk -v number="$1" -v part="$2" '$1 == part { gsub(",", " ", $number); print $number }'
}

is_there() { # PART
  case $1 in
    exim) type -P exim4 || type -P exim ;;
    php | swaks | msmtp) type -P "$1" ;;
    softhsm) type -P softhsm2-util && [[ -n $(find /usr/lib* -maxdepth 3 -name pkcs11-spy.so 2>/dev/null) ]] ;;
    swtpm) type -P swtpm && type -P tpm2_pcrextend ;;
    postfix) [[ -x $UNPACKED/postfix/usr/sbin/postfix ]] ;;
    phpmailer) [[ -n $(find /usr/share/php -maxdepth 4 -name PHPMailer.php 2>/dev/null) ]] ;;
    venv) "$PYTHON" -c 'import ensurepip' 2>/dev/null ;;
  esac >/dev/null
}

find_missing() { # PART...
  missing=()
  local part
  for part in "$@"; do
    is_there "$part" || missing+=("$part")
  done
}

leave_out() { # REASON PART...
  local part reason=$1
  for part in "${@:2}"; do
    printf '  left out: %s (%s)\n' "$(column 2 "$part")" "$reason"
  done
}

take_turn() {
  exec 9>"$TURN"
  flock --timeout 600 9
}

# Debian's maintainer scripts ask policy-rc.d before they start a service; 101 means no. One that is there already is
# the administrator's and stays, so it has to say no by itself; one of ours that a killed run left behind is taken over.
forbid_service_starts() {
  if [[ -e $POLICY ]] && ! grep -qxF "$POLICY_MARK" "$POLICY"; then
    local answer=0
    "$POLICY" exim4 start >/dev/null 2>&1 || answer=$?
    return $((answer != 101))
  fi
  trap 'rm -f "$POLICY"' EXIT
  trap 'exit 130' HUP INT TERM # bash waits for apt-get first, so the file outlives it
  printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
  chmod 755 "$POLICY"
}

# Downloads a part with what it needs and this machine lacks, and unpacks that beside the system.
unpack_with_apt() { # PART
  local packages archives=$UNPACKED/$1.archives fresh=$UNPACKED/$1.fresh
  read -ra packages <<<"$(column 3 "$1")"
  rm -rf "$archives" "$fresh"
  mkdir -p "$archives/partial" "$fresh"
  if "$STEP" "system package ${packages[*]} (unpacked)" "${APT[@]}" -o "Dir::Cache::archives=$(realpath "$archives")" \
    --download-only install "${packages[@]}" && find "$archives" -name '*.deb' -exec dpkg -x {} "$fresh" \;; then
    rm -rf "${UNPACKED:?}/$1"
    mv "$fresh" "$UNPACKED/$1"
  else
    leave_out "apt-get failed to download ${packages[*]}" "$1"
  fi
  rm -rf "$archives" "$fresh"
}

install_with_apt() { # PART...
  local part packages plan removals
  "$STEP" 'package lists' "${APT[@]}" update || true
  for part in "$@"; do
    if [[ $part == postfix ]]; then
      unpack_with_apt "$part"
      continue
    fi
    read -ra packages <<<"$(column 3 "$part")"
    if ! plan=$("${APT[@]}" --simulate install "${packages[@]}" 2>&1); then
      leave_out "apt-get cannot install ${packages[*]}: $(tail -n 1 <<<"$plan")" "$part"
      continue
    fi
    removals=$(awk '$1 == "Remv" { print $2 }' <<<"$plan" | paste -sd' ')
    if [[ -n $removals ]]; then
      leave_out "installing ${packages[*]} would remove $removals" "$part"
      continue
    fi
    "$STEP" "system package ${packages[*]}" "${APT[@]}" --no-remove install "${packages[@]}" ||
      leave_out "apt-get failed to install ${packages[*]}" "$part"
  done
  if [[ " $* " == *' exim '* && -d /run/systemd/system ]]; then
    echo '  note: Exim was not started; Debian starts it at the next boot, unless you run: systemctl disable exim4'
  fi
}

install_with_dnf() { # PART...
  local part packages
  rpm --quiet -q epel-release || "$STEP" 'system package epel-release' "${DNF[@]}" install epel-release || true
  for part in "$@"; do
    read -ra packages <<<"$(column 4 "$part")"
    if [[ ${packages[*]} == - ]]; then
      leave_out 'there is no package of it that fits' "$part"
      continue
    fi
    "$STEP" "system package ${packages[*]}" "${DNF[@]}" install "${packages[@]}" ||
      leave_out "dnf failed to install ${packages[*]}" "$part"
  done
}

install_missing() {
  if ((${#missing[@]} == 0)); then
    return
  elif type -P apt-get >/dev/null; then
    if forbid_service_starts; then
      install_with_apt "${missing[@]}"
    else
      leave_out "$POLICY would let services start" "${missing[@]}"
    fi
  elif type -P dnf >/dev/null; then
    install_with_dnf "${missing[@]}"
  else
    leave_out 'neither apt-get nor dnf is here' "${missing[@]}"
  fi
}

main() {
  local missing only_name=
  if [[ ${1:-} == --missing ]]; then
    only_name=yes
    shift
  fi
  (($#)) || set -- exim php phpmailer swaks msmtp postfix softhsm swtpm
  find_missing "$@"
  ((${#missing[@]})) || return 0

  if [[ $only_name ]]; then
    printf '%s\n' "${missing[@]}"
  elif ((EUID != 0)); then
    leave_out 'installing it needs root' "${missing[@]}"
  elif ! take_turn; then
    leave_out 'another installation has not finished' "${missing[@]}"
  else
    find_missing "${missing[@]}"
    install_missing
  fi
}

main "$@"
