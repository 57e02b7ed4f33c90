#ifndef BGBACKUP_CEXPAT_SHIM_H
#define BGBACKUP_CEXPAT_SHIM_H
#include <expat.h>
#endif
