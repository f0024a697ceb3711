# Inside the root of peers/enter.sh.
set -eu
add_user() { # NAME ID
  grep -q "^$1:" /etc/group || echo "$1:x:$2:" >>/etc/group
  grep -q "^$1:" /etc/passwd || echo "$1:x:$2:$2::/var/lib/opensmtpd/empty:/usr/sbin/nologin" >>/etc/passwd
}
add_user opensmtpd 64993
add_user opensmtpq 64994
cp /config/smtpd.conf /etc/smtpd.conf
chmod 644 /etc/smtpd.conf
echo host.example.org >/etc/mailname
chmod 755 /var/lib/opensmtpd /var/lib/opensmtpd/empty
chmod 711 /var/spool/smtpd
chown root:root /var/spool/smtpd
exec smtpd -d -f /etc/smtpd.conf
