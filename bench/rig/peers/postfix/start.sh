# Inside the root of peers/enter.sh.
set -eu
add_user() { # NAME ID
  grep -q "^$1:" /etc/group || echo "$1:x:$2:" >>/etc/group
  grep -q "^$1:" /etc/passwd || echo "$1:x:$2:$2::/nonexistent:/usr/sbin/nologin" >>/etc/passwd
}
add_user postfix 64990
add_user postdrop 64991
cp /config/main.cf /config/master.cf /etc/postfix/
mkdir -p /var/lib/postfix
chown postfix:postfix /var/lib/postfix
exec postfix start-fg
