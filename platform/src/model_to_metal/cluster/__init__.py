"""A real Kubernetes on one machine, started by the project itself, with nothing installed.

layout            where a cluster's files lie
programs, build   what it is built from, and building it once
prerequisites     what the machine must have
network, cgroups  addresses, link and routes; control groups
pki, images       credentials; images of its own pods
components        what runs on the node, as data, one file a part
configure         fills a cluster's folder
node              inside the namespaces: the first process, which starts components and keeps them running
facts, lifecycle  what is known of a cluster; up and down
status            how it is, for a person and a script
"""
