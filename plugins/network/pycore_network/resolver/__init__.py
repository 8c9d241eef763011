"""The DNS server of the networks, in the engine's process: names of containers from here, all others from elsewhere.

service     begins when there is a network, ends with the last; leads the containers' queries here
server      what becomes of one query: who asks, what is known here, what is asked elsewhere
tables      who is in which network under which names and addresses, read from the run dir
policy      what a container may ask, and who is told of what it is answered
wire        messages, by dnspython: nothing else here knows the format
upstream    the servers that the host asks
forward     queries to them, and their answers
datagrams   UDP: in turn, whoever asks how much
streams     TCP
timers      what is to be done later, on the resolver's one thread
"""
