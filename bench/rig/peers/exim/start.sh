# Inside the root of peers/enter.sh.
set -eu
grep -q '^Debian-exim:' /etc/group || echo 'Debian-exim:x:64992:' >>/etc/group
grep -q '^Debian-exim:' /etc/passwd ||
  echo 'Debian-exim:x:64992:64992::/var/spool/exim4:/usr/sbin/nologin' >>/etc/passwd
mkdir -p /etc/exim4 /var/log/exim4
cp /config/exim.conf /etc/exim4/exim4.conf
chown root:Debian-exim /etc/exim4/exim4.conf
chmod 640 /etc/exim4/exim4.conf
chown Debian-exim:Debian-exim /var/log/exim4 /var/spool/exim4
exec exim4 -bdf -q5s
